package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxSetBytes = 512 << 10
	// maxSetKeys bounds what a token that names no key costs: each is tried.
	maxSetKeys = 64
)

// errNoKeys: a set that has nothing for us, an empty one above all, replaces none that had.
var errNoKeys = errors.New("it has no usable key")

// parseSet reads a JSON Web Key Set. A key that cannot be used does not spoil the others: skipped tells why each was not taken.
// Secrets are never taken from one, and of a private key only the public half.
func parseSet(b []byte, algorithms []string) (keys []*key, skipped []error, _ error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if json.Unmarshal(b, &set) != nil { // its own text quotes the input
		return nil, nil, errors.New("it is not a JSON object with an array of keys")
	}
	if len(set.Keys) > maxSetKeys {
		return nil, nil, fmt.Errorf("it has %d keys, the limit is %d", len(set.Keys), maxSetKeys)
	}
	for n, one := range set.Keys {
		k, err := parseJWK(one)
		if err == nil {
			err = k.pin(algorithms)
		}
		if err != nil {
			skipped = append(skipped, fmt.Errorf("key %d: %w", n+1, err))
			continue
		}
		keys = append(keys, k)
	}
	switch {
	case keys != nil:
		return keys, skipped, nil
	case skipped != nil:
		return nil, nil, fmt.Errorf("%w: %s", errNoKeys, reasons(skipped))
	}
	return nil, nil, errNoKeys
}

func parseJWK(b []byte) (*key, error) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(b, &m) != nil {
		return nil, errors.New("it is not a JSON Web Key")
	}
	switch {
	case m.KTY == jwkset.KtyOct:
		return nil, errors.New("a secret (oct), which does not belong in a set")
	case m.USE != "" && m.USE != jwkset.UseSig:
		return nil, fmt.Errorf("use %s is not sig", quoted(string(m.USE)))
	case len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify):
		return nil, errors.New("verify is not in key_ops")
	case len(m.KID) > maxKidBytes:
		return nil, fmt.Errorf("kid of %d bytes, the limit is %d", len(m.KID), maxKidBytes)
	}
	m.X5U, m.X5C, m.X5T, m.X5TS256 = "", nil, "", "" // the key alone counts; an address in it is nobody's to call
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		if errors.Is(err, jwkset.ErrUnsupportedKey) || m.KTY != jwkset.KtyRSA && m.KTY != jwkset.KtyEC && m.KTY != jwkset.KtyOKP {
			return nil, fmt.Errorf("kty %s, crv %s: not supported", quoted(string(m.KTY)), quoted(string(m.CRV)))
		}
		return nil, fmt.Errorf("kty %s: its parameters are not valid", m.KTY) // the library's text may quote them
	}
	k := &key{public: jwk.Key(), kid: m.KID, alg: string(m.ALG), inSet: true}
	if k.kind, err = kindOf(k.public); err != nil {
		return nil, err
	}
	return k, nil
}

// reasons is a list of errors in one line of a log.
func reasons(errs []error) string {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}
