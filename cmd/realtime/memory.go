package main

import (
	"errors"
	"log/slog"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// limitMemory has the collector work harder before the container's limit would end the process: Go does not look at that limit
// by itself. GOMEMLIMIT goes before it.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set()
	switch {
	case errors.Is(err, memlimit.ErrCgroupsNotSupported), errors.Is(err, memlimit.ErrNoCgroup):
	case err != nil:
		log.Warn("memory limit not set", "err", err)
	case limit < math.MaxInt64:
		log.Info("memory limit", "bytes", limit)
	}
}
