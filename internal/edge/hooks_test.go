package edge

import (
	"context"
	"log/slog"
	"testing"

	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

// inside is a chain with a callback of the program around.
func inside(t *testing.T, f func(context.Context, *hooks.Session, *message.Message) (*message.Message, error)) *hooks.Chain {
	return hooks.New(hooks.Config{Hooks: hooks.Hooks{Message: f}, Inside: true}, slog.New(slog.NewTextHandler(t.Output(), nil)))
}
