package redis

import (
	"context"
	"errors"
	"strings"
	"time"
)

const findAgain = 200 * time.Millisecond

// Find looks for a Redis before a node begins on it: once, or until the wait is over or ctx ends. What it finds is logged. An
// error is an *UnfitError, or of options that will not do: no waiting cures it.
func Find(ctx context.Context, o Options, wait time.Duration) (found bool, err error) {
	o.setDefaults()
	begin, told := time.Now(), false
	for {
		away, err := o.find(ctx)
		switch {
		case away == nil:
			return err == nil, err
		case time.Since(begin) >= wait:
			o.Logger.Warn("redis is not there: this node begins without it", "redis", o.addrs(), "err", away)
			return false, nil
		case !told:
			told = true
			o.Logger.Warn("redis is not there yet: it is waited for", "redis", o.addrs(), "err", away, "wait", wait.String())
		}
		pause(ctx, findAgain)
	}
}

// FindLater is Find for a node that has begun without: it looks until Redis is there or ctx ends.
func FindLater(ctx context.Context, o Options) error {
	o.setDefaults()
	for {
		away, err := o.find(ctx)
		if away == nil {
			return err
		}
		pause(ctx, findAgain)
	}
}

// find looks once, and logs what is there. away is why nothing is; err that it will not do. Neither counts once ctx has ended.
func (o *Options) find(ctx context.Context) (away, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	report, err := Check(ctx, *o)
	_, unfit := errors.AsType[*UnfitError](err)
	switch {
	case ctx.Err() != nil:
		return nil, nil
	case unfit:
		return nil, err
	case err != nil:
		return err, nil
	case len(report.Lacks) > 0:
		o.Logger.Warn("redis is there, but lacks something", "redis", o.addrs(), "version", report.Version, "lacks", report.Lacks)
	default:
		o.Logger.Info("redis is there", "redis", o.addrs(), "version", report.Version)
	}
	return nil, nil
}

func (o *Options) addrs() string { return strings.Join(o.Client.InitAddress, ",") }
