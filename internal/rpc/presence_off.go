package rpc

import (
	"context"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// noPresences answers where presence is turned off: nobody is told that nobody is there.
type noPresences struct {
	realtimev1.UnimplementedPresenceServiceServer
}

// presenceOff names the option that turned it off.
func presenceOff() error {
	return &refusal{error: errOff, text: "presence is turned off on this node: --no-presence", metadata: map[string]string{"option": "presence"}}
}

// GetPresence implements the service.
func (noPresences) GetPresence(context.Context, *realtimev1.GetPresenceRequest) (*realtimev1.GetPresenceResponse, error) {
	return nil, presenceOff()
}

// CountPresence implements the service.
func (noPresences) CountPresence(context.Context, *realtimev1.CountPresenceRequest) (*realtimev1.CountPresenceResponse, error) {
	return nil, presenceOff()
}

// GetUsers implements the service.
func (noPresences) GetUsers(context.Context, *realtimev1.GetUsersRequest) (*realtimev1.GetUsersResponse, error) {
	return nil, presenceOff()
}

// ListRooms implements the service.
func (noPresences) ListRooms(context.Context, *realtimev1.ListRoomsRequest) (*realtimev1.ListRoomsResponse, error) {
	return nil, presenceOff()
}

// WatchPresence implements the service.
func (noPresences) WatchPresence(*realtimev1.WatchPresenceRequest, realtimev1.PresenceService_WatchPresenceServer) error {
	return presenceOff()
}
