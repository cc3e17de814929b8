package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// issuer is one whose tokens count. Its keys judge its tokens alone, whatever key ids others have.
type issuer struct {
	name     string // "": any that no other is
	audience string // "": not looked at
	sources  []*source
	remotes  []*remote // of the sources, those that can be asked for a key that is not there
}

// source is where keys come from. Run replaces them, all at once.
type source struct {
	name string // for logs and errors: a path, a variable, or a URL without what may be secret in it
	keys atomic.Pointer[[]*key]
}

func newSource(name string, keys ...*key) *source {
	s := &source{name: name}
	s.keys.Store(&keys)
	return s
}

// open makes the issuers and reads what is at hand of their keys.
func (v *Verifier) open(cfg *Config) error {
	own := &issuer{name: cfg.Issuer, audience: cfg.Audience}
	keys, err := v.openKeys(own, cfg)
	if err != nil {
		return err
	}
	sets := slices.Clone(cfg.KeySets)
	for _, more := range cfg.Issuers {
		sets = append(sets, more.KeySets...)
	}
	if len(keys) == 0 && len(sets) == 0 {
		return errors.New("no key to verify tokens with")
	}
	if err := checkAlgorithms(cfg.Algorithms, keys, len(sets) > 0); err != nil {
		return err
	}
	for _, k := range keys {
		if err := k.pin(cfg.Algorithms); err != nil {
			return fmt.Errorf("key %s: %w", k.name, err)
		}
		if k.kind == secretKind && len(cfg.KeySets) > 0 {
			return fmt.Errorf("key %s: a secret beside a key set of the same issuer: leave one out, or give the set an issuer of its own", k.name)
		}
	}
	if err := v.openSets(own, cfg.KeySets, cfg); err != nil {
		return err
	}
	if len(own.sources) > 0 {
		v.issuers = append(v.issuers, own)
	}
	for _, more := range cfg.Issuers {
		if more.Name == "" || slices.ContainsFunc(v.issuers, func(i *issuer) bool { return i.name == more.Name }) {
			return fmt.Errorf("issuer %s: it must have a name, and be named once", quoted(more.Name))
		}
		i := &issuer{name: more.Name, audience: more.Audience}
		if err := v.openSets(i, more.KeySets, cfg); err != nil {
			return err
		}
		v.issuers = append(v.issuers, i)
	}
	return nil
}

// openKeys reads the keys that are given one by one.
func (v *Verifier) openKeys(i *issuer, cfg *Config) (keys []*key, _ error) {
	var errs []error
	for _, name := range cfg.Keys {
		w, err := watchKey(name, cfg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if w.path != "" {
			v.watched = append(v.watched, w)
		}
		i.sources, keys = append(i.sources, w.source), append(keys, *w.keys.Load()...)
	}
	if cfg.Secret != nil {
		k := &key{name: "of the program", kind: secretKind, public: cfg.Secret, private: cfg.Secret}
		i.sources, keys = append(i.sources, newSource(k.name, k)), append(keys, k)
	}
	return keys, errors.Join(errs...)
}

func (v *Verifier) openSets(i *issuer, sets []string, cfg *Config) error {
	for _, from := range sets {
		if !isURL(from) {
			w, err := watchSet(from, cfg)
			if err != nil {
				return err
			}
			v.watched, i.sources = append(v.watched, w), append(i.sources, w.source)
			continue
		}
		r, err := newRemote(from, cfg)
		if err != nil {
			return err
		}
		v.remotes, i.remotes, i.sources = append(v.remotes, r), append(i.remotes, r), append(i.sources, r.source)
	}
	return nil
}

func isURL(s string) bool { return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") }

// issuerOf tells whose keys judge a token. With one issuer that needs no look at it.
func (v *Verifier) issuerOf(s *scratch, payload []byte) (*issuer, error) {
	if len(v.issuers) == 1 {
		return v.issuers[0], nil
	}
	iss, err := s.issuer(payload)
	if err != nil {
		return nil, err
	}
	var others *issuer
	for _, i := range v.issuers {
		switch i.name {
		case iss:
			return i, nil
		case "":
			others = i
		}
	}
	if others == nil {
		return nil, refuse("iss %s is none of the configured issuers", quoted(iss))
	}
	return others, nil
}

// checkSignature tries each key that the token may mean and that alg is pinned to.
func (i *issuer) checkSignature(alg, kid, signed string, signature []byte) error {
	meant, tried := false, false
	for _, s := range i.sources {
		for _, k := range *s.keys.Load() {
			if k.inSet && kid != "" && k.kid != kid {
				continue
			}
			meant = true
			m := find(k.methods, alg)
			if m == nil {
				continue
			}
			if m.Verify(signed, signature, k.public) == nil {
				return nil
			}
			tried = true
		}
	}
	for _, r := range i.remotes {
		if kid != "" && !r.has(kid) {
			r.ask(kid)
		}
	}
	switch {
	case !meant:
		return fmt.Errorf("%w: kid %s", ErrUnknownKey, quoted(kid))
	case !tried:
		return refuse("alg %s is none of the configured ones", quoted(alg))
	}
	return refuse("no key verifies the signature")
}

// has tells whether the source holds a key by this id.
func (s *source) has(kid string) bool {
	return slices.ContainsFunc(*s.keys.Load(), func(k *key) bool { return k.kid == kid })
}

// Usable tells whether there is a key at all: without one every token is refused.
func (v *Verifier) Usable() bool {
	return slices.ContainsFunc(v.issuers, func(i *issuer) bool {
		return slices.ContainsFunc(i.sources, func(s *source) bool { return len(*s.keys.Load()) > 0 })
	})
}
