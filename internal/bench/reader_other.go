//go:build !linux

package bench

import (
	"context"
	"errors"
)

func (w *swarm) run(context.Context) error { return errors.New("bench needs Linux") }
