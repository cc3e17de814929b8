package node

import "github.com/slack5/realtime/internal/presence"

func render(u presence.Update) []byte { return nil }
