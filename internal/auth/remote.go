package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	// refreshEvery is how old a key set gets: a key that its issuer has withdrawn counts for so long.
	refreshEvery = 5 * time.Minute
	// What a fetch may take, and how soon one that failed is tried again.
	fetchTimeout = 5 * time.Second
	retryFrom    = time.Second
	retryAtMost  = time.Minute
	maxRedirects = 3
	// askEvery bounds how often tokens that name an unknown key have the set fetched, whoever sends them.
	askEvery = 10 * time.Second
	// missedFor is how long one such name is not asked for again.
	missedFor   = time.Minute
	missesNoted = 1024
)

// remote is a key set behind a URL. Its run alone fetches; a failure leaves the keys that are there.
type remote struct {
	*source
	url        string
	algorithms []string
	client     *http.Client
	log        *slog.Logger
	asked      chan struct{}
	missed     *lru.Cache[string, time.Time] // unknown names, until when they are not asked for
	digest     [sha256.Size]byte             // run's: of the set that the keys are from

	fetched    atomic.Int64 // when the set was last read, or else when waiting for it began; Unix nanoseconds
	ok, failed atomic.Uint64
}

func newRemote(from string, cfg *Config) (*remote, error) {
	u, err := url.Parse(from)
	if err != nil || u.Host == "" {
		return nil, errors.New("the URL of a key set is not one; it is not shown as it may hold a password")
	}
	name := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	if u.Scheme == "http" && !cfg.PlainHTTP && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("key set %s: over http:// whoever is in between could sign tokens: it must be https://", name)
	}
	missed, err := lru.New[string, time.Time](missesNoted)
	if err != nil {
		return nil, err
	}
	r := &remote{
		source: newSource(name), url: from, algorithms: cfg.Algorithms, client: fetcher(),
		log: cfg.Logger.With("component", "auth"), asked: make(chan struct{}, 1), missed: missed,
	}
	r.fetched.Store(time.Now().UnixNano())
	return r, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// fetcher goes where it is told and no further, keeps no connection, and waits for nobody for long.
func fetcher() *http.Client {
	return &http.Client{
		Timeout: fetchTimeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if first := via[0].URL; r.URL.Scheme != first.Scheme || r.URL.Host != first.Host || len(via) > maxRedirects {
				return errors.New("redirected elsewhere, or too often: give the address itself")
			}
			return nil
		},
	}
}

// ask has the set fetched soon, for a key that it may have by now. It never waits.
func (r *remote) ask(kid string) {
	now := time.Now()
	if until, ok := r.missed.Get(kid); ok && now.Before(until) {
		return
	}
	r.missed.Add(kid, now.Add(missedFor))
	select {
	case r.asked <- struct{}{}:
	default: // somebody has asked already
	}
}

// run keeps the keys fresh until ctx ends. tried is called once, after the first attempt.
func (r *remote) run(ctx context.Context, tried func()) {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = retryFrom, retryAtMost
	asking := rate.NewLimiter(rate.Every(askEvery), 1)
	for first := true; ; first = false {
		select {
		case <-r.asked: // this is the answer
		default:
		}
		wait := refreshEvery - rand.N(refreshEvery/10) // nodes that began together do not fetch together
		if err := r.refresh(ctx); err == nil {
			retry.Reset()
		} else if wait = retry.NextBackOff(); ctx.Err() == nil {
			r.failed.Add(1)
			r.log.Warn("key set not fetched, the keys that were there are kept", "source", r.name, "keys", len(*r.keys.Load()), "err", err)
		}
		if first {
			tried()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.asked:
			timer.Stop()
			if asking.Wait(ctx) != nil {
				return
			}
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (r *remote) refresh(ctx context.Context) error {
	b, err := r.fetch(ctx)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(b)
	if digest != r.digest {
		keys, skipped, err := parseSet(b, r.algorithms)
		if err != nil {
			return err
		}
		r.keys.Store(&keys)
		r.digest = digest
		r.log.Info("keys read", "source", r.name, "keys", len(keys))
		if skipped != nil {
			r.log.Warn("keys of a set not usable", "source", r.name, "err", reasons(skipped))
		}
	}
	r.fetched.Store(time.Now().UnixNano())
	r.ok.Add(1)
	return nil
}

func (r *remote) fetch(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, http.NoBody)
	if err != nil {
		return nil, errors.New("the URL cannot be asked")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err // it quotes the URL
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxSetBytes+1))
	if err == nil && len(b) > maxSetBytes {
		err = fmt.Errorf("it is larger than %d bytes", maxSetBytes)
	}
	return b, err
}
