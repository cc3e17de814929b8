package realtime

import "context"

// Broadcaster connects a hub to the hubs of other processes. It is sealed: only this package implements it. A program that
// runs as a single process needs none, and keeps a nil Broadcaster.
type Broadcaster interface {
	// Publish is Hub.Publish of the hub it belongs to: there is one way in.
	Publish(ctx context.Context, msg *Message) error
	// Run keeps the connection until ctx ends.
	Run(ctx context.Context) error

	sealed()
}
