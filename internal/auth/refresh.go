package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// lookEvery is how often files with keys are looked at: a new one counts that soon.
const lookEvery = time.Second

// Stats tell of the key sets that are fetched.
type Stats struct {
	Age        time.Duration // since the set that was fetched longest ago was; 0: there is none
	Fetched    uint64
	NotFetched uint64 // attempts that failed, or brought nothing usable
}

// Stats reads the counters.
func (v *Verifier) Stats() (st Stats) {
	for _, r := range v.remotes {
		st.Age = max(st.Age, time.Since(time.Unix(0, r.fetched.Load())))
		st.Fetched += r.ok.Load()
		st.NotFetched += r.failed.Load()
	}
	return st
}

// Run keeps the keys as their files and URLs have them, until ctx ends; what cannot be read leaves those before in place. tried
// is called once, when each URL has been asked: not before then can all tokens be judged. Run may be called once.
func (v *Verifier) Run(ctx context.Context, tried func()) {
	var all, first sync.WaitGroup
	first.Add(len(v.remotes))
	for _, r := range v.remotes {
		all.Go(func() { r.run(ctx, first.Done) })
	}
	if len(v.watched) > 0 {
		all.Go(func() { v.watch(ctx) })
	}
	first.Wait()
	tried()
	all.Wait()
}

func (v *Verifier) watch(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			for _, w := range v.watched {
				w.refresh()
			}
		case <-ctx.Done():
			return
		}
	}
}

// watched is a file with keys, which is read again when it changes.
type watched struct {
	*source
	path string // "": a variable, or no file that can change
	read func() ([]*key, error)
	log  *slog.Logger
	seen stamp // of the version that was read last, usable or not
}

// stamp tells versions of a file apart.
type stamp struct {
	at   time.Time
	size int64
	mode fs.FileMode
}

// look tells the version of a file that is there; the zero one if none can be read.
func look(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size(), info.Mode()}
}

func openWatched(name, path string, cfg *Config, read func() ([]*key, error)) (*watched, error) {
	w := &watched{source: newSource(name), path: path, read: read, log: cfg.Logger.With("component", "auth")}
	w.seen = look(path) // before it is read: who changes it now is noticed the next time
	keys, err := read()
	if err != nil {
		return nil, err
	}
	if !w.seen.mode.IsRegular() {
		w.path = "" // a pipe, which is read once
	}
	w.keys.Store(&keys)
	return w, nil
}

// watchKey reads one key.
func watchKey(name string, cfg *Config) (*watched, error) {
	var kept *key
	path := name
	if strings.HasPrefix(name, "env:") {
		path = ""
	}
	return openWatched(name, path, cfg, func() ([]*key, error) {
		k, err := load(name)
		switch {
		case err != nil:
			return nil, err
		case kept == nil: // New pins it, when it knows all
		case (kept.kind == secretKind) != (k.kind == secretKind):
			return nil, fmt.Errorf("key %s: %s in place of %s: that takes a restart", name, k.kind.name, kept.kind.name)
		default:
			if err := k.pin(cfg.Algorithms); err != nil {
				return nil, fmt.Errorf("key %s: %w", name, err)
			}
		}
		kept = k
		return []*key{k}, nil
	})
}

// watchSet reads a JSON Web Key Set.
func watchSet(path string, cfg *Config) (*watched, error) {
	log := cfg.Logger.With("component", "auth")
	return openWatched(path, path, cfg, func() ([]*key, error) {
		b, _, err := readFile(path, maxSetBytes)
		if errors.Is(err, fs.ErrNotExist) && !isPath(path) {
			return nil, errors.New("a key set is given as its file's path or URL: there is no file of the name given, which is not shown")
		}
		if err != nil {
			return nil, fmt.Errorf("key set %s: %w", path, err)
		}
		keys, skipped, err := parseSet(b, cfg.Algorithms)
		if err != nil {
			return nil, fmt.Errorf("key set %s: %w", path, err)
		}
		if skipped != nil {
			log.Warn("keys of a set not usable", "source", path, "err", reasons(skipped))
		}
		return keys, nil
	})
}

// refresh reads the file if it has changed. Each bad version is told once.
func (w *watched) refresh() {
	seen := look(w.path)
	if seen == w.seen {
		return
	}
	w.seen = seen
	keys, err := w.read()
	if err != nil {
		w.log.Error("keys not usable, those before are kept", "source", w.name, "err", err)
		return
	}
	w.keys.Store(&keys)
	w.log.Info("keys read", "source", w.name, "keys", len(keys))
}
