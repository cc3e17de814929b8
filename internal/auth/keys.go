package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

const (
	minSecretBytes = 32
	minRSABits     = 2048
	maxRSABits     = 16 << 10 // what is longer takes too long to verify with
	maxKeyBytes    = 64 << 10 // of a file; a chain of certificates is a few KiB
)

// kind is what a key is. The sets of methods are disjoint, so a public key never serves as a secret nor a secret as one.
type kind struct {
	name    string
	methods []jwt.SigningMethod // the first is the default
}

// kinds in the order in which errors name them.
var (
	secretKind  = &kind{"a secret", []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512}}
	rsaKind     = &kind{"an RSA key", []jwt.SigningMethod{jwt.SigningMethodRS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512, pss(jwt.SigningMethodPS256), pss(jwt.SigningMethodPS384), pss(jwt.SigningMethodPS512)}}
	p256Kind    = &kind{"a P-256 key", []jwt.SigningMethod{jwt.SigningMethodES256}}
	p384Kind    = &kind{"a P-384 key", []jwt.SigningMethod{jwt.SigningMethodES384}}
	p521Kind    = &kind{"a P-521 key", []jwt.SigningMethod{jwt.SigningMethodES512}}
	ed25519Kind = &kind{"an Ed25519 key", []jwt.SigningMethod{jwt.SigningMethodEdDSA}}

	kinds = []*kind{secretKind, rsaKind, p256Kind, p384Kind, p521Kind, ed25519Kind}
)

// pss is a method of the library with the salt as long as the hash (RFC 7518, 3.5); its own takes any salt when it verifies.
func pss(m *jwt.SigningMethodRSAPSS) jwt.SigningMethod {
	return &jwt.SigningMethodRSAPSS{SigningMethodRSA: m.SigningMethodRSA, Options: &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}}
}

// algorithms are the names of a kind's methods.
func (k *kind) algorithms() string {
	names := make([]string, len(k.methods))
	for i, m := range k.methods {
		names[i] = m.Alg()
	}
	return strings.Join(names, ", ")
}

// find returns the method that alg names, nil if it is none of these.
func find(methods []jwt.SigningMethod, alg string) jwt.SigningMethod {
	for _, m := range methods {
		if m.Alg() == alg {
			return m
		}
	}
	return nil
}

// key is one that verifies.
type key struct {
	name    string // its path or "env:NAME", or which one it is of a set; never its value
	kind    *kind
	kid     string              // of a set; "": it has none
	alg     string              // the only one it is for, says its set; "": what fits it
	inSet   bool                // a token that names a key names this one by kid; a key of no set is tried for every token
	public  any                 // verifies: []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	private any                 // signs; nil: only the public half is known
	methods []jwt.SigningMethod // it verifies these alone
}

// checkAlgorithms refuses what would never be used: an algorithm that fits no key. Of sets one cannot know before they come.
func checkAlgorithms(algorithms []string, keys []*key, sets bool) error {
	for _, alg := range algorithms {
		if !slices.ContainsFunc(kinds, func(k *kind) bool { return find(k.methods, alg) != nil }) {
			return unknownAlgorithm(alg)
		}
		if sets && find(secretKind.methods, alg) == nil {
			continue
		}
		if !slices.ContainsFunc(keys, func(k *key) bool { return find(k.kind.methods, alg) != nil }) {
			return fmt.Errorf("algorithm %s fits none of the keys", alg)
		}
	}
	return nil
}

// pin gives a key its methods: the one its set names, else those of the algorithms that fit it, else the default of its kind.
func (k *key) pin(algorithms []string) error {
	if len(algorithms) == 0 {
		k.methods = k.kind.methods[:1]
	}
	for _, alg := range algorithms {
		if m := find(k.kind.methods, alg); m != nil {
			k.methods = append(k.methods, m)
		}
	}
	if k.alg != "" {
		own := find(k.kind.methods, k.alg)
		if own == nil {
			return fmt.Errorf("alg %s does not fit %s, which takes %s", quoted(k.alg), k.kind.name, k.kind.algorithms())
		}
		if len(algorithms) > 0 && find(k.methods, k.alg) == nil {
			return fmt.Errorf("alg %s is none of the configured ones", k.alg)
		}
		k.methods = []jwt.SigningMethod{own}
	}
	if k.methods == nil {
		return fmt.Errorf("none of the algorithms fits %s, it takes %s", k.kind.name, k.kind.algorithms())
	}
	return nil
}

func unknownAlgorithm(alg string) error {
	var all []string
	for _, k := range kinds {
		all = append(all, k.algorithms())
	}
	return fmt.Errorf("algorithm %s is not one of %s", quoted(alg), strings.Join(all, ", "))
}

// load reads one key and judges its strength and its file.
func load(name string) (*key, error) {
	if strings.ContainsAny(name, "\r\n") {
		return nil, errors.New("a key is given as its file's path or env:NAME, not as its value")
	}
	var b []byte
	var err error
	exposed := false
	if variable, ok := strings.CutPrefix(name, "env:"); ok {
		if b = []byte(os.Getenv(variable)); len(b) == 0 {
			err = errors.New("the variable is not set")
		}
	} else {
		b, exposed, err = readFile(name, maxKeyBytes)
	}
	if name != "" && errors.Is(err, fs.ErrNotExist) && !isPath(name) {
		return nil, errors.New("a key is given as its file's path or env:NAME: there is no file of the name given, which is not shown as it may be the key itself")
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	k, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	if exposed && k.private != nil {
		return nil, fmt.Errorf("key %s: everybody may read the file: chmod o-r", name)
	}
	k.name = name
	return k, nil
}

// isPath tells a path from what may be a secret in its place.
func isPath(name string) bool {
	return filepath.IsAbs(name) || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../") || len(filepath.Ext(name)) > 1 && len(name) < minSecretBytes
}

// readFile returns a file's bytes without a final newline, and whether everybody may read it.
func readFile(path string, most int) (b []byte, exposed bool, err error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil {
			exposed = info.Mode()&0o004 != 0
			b, err = io.ReadAll(io.LimitReader(f, int64(most)+1))
		}
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err // who reports it names the path
	}
	if err == nil && len(b) > most {
		err = fmt.Errorf("the file is larger than %d bytes: it is no key", most)
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")), exposed, err
}

func parse(b []byte) (*key, error) {
	if bytes.Contains(b, []byte("-----BEGIN ")) {
		return parsePEM(b)
	}
	switch {
	case len(b) < minSecretBytes:
		return nil, fmt.Errorf("a secret of %d bytes, it must have at least %d: openssl rand -base64 32 makes one", len(b), minSecretBytes)
	case weak(b):
		return nil, errors.New("a secret that repeats itself: openssl rand -base64 32 makes a better one")
	case published(b):
		return nil, errors.New("a public key or a JWK that is not PEM: as a secret, others might know it")
	}
	return &key{kind: secretKind, public: b, private: b}, nil
}

// weak: a unit that is repeated, or next to no different bytes. Random bytes, hex or base64 never are.
func weak(b []byte) bool {
	const fewest = 6
	var seen [256]bool
	different := 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			different++
		}
	}
	if different < fewest {
		return true
	}
	for unit := 1; unit <= len(b)/2; unit++ {
		if bytes.Equal(b[unit:], b[:len(b)-unit]) {
			return true
		}
	}
	return false
}

// published recognises public keys in other dress than PEM. A secret that was one would let everybody sign.
func published(b []byte) bool {
	if bytes.HasPrefix(b, []byte("ssh-")) || bytes.HasPrefix(b, []byte("ecdsa-")) || b[0] == '{' && jsontext.Value(b).IsValid() {
		return true
	}
	for _, der := range [][]byte{b, fromBase64(b)} {
		if _, err := x509.ParsePKIXPublicKey(der); err == nil {
			return true
		}
		if _, err := x509.ParsePKCS1PublicKey(der); err == nil {
			return true
		}
		if _, err := x509.ParseCertificate(der); err == nil {
			return true
		}
	}
	return false
}

// fromBase64 returns nothing if b is something else.
func fromBase64(b []byte) []byte {
	der, err := base64.StdEncoding.DecodeString(string(b))
	if err != nil {
		return nil
	}
	return der
}

// parsePEM takes the first key or certificate.
func parsePEM(b []byte) (*key, error) {
	block, rest := pem.Decode(b)
	for block != nil && block.Type == "EC PARAMETERS" { // openssl puts them in front
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("broken PEM")
	}
	var parsed any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		parsed, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		parsed, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			parsed = c.PublicKey
		}
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		err = fmt.Errorf("PEM of type %s, it must be PUBLIC KEY, CERTIFICATE or an unencrypted PRIVATE KEY", quoted(block.Type))
	}
	if err != nil {
		return nil, err
	}
	k := &key{public: parsed}
	if s, ok := parsed.(crypto.Signer); ok {
		k.private, k.public = parsed, s.Public()
	}
	if k.kind, err = kindOf(k.public); err != nil {
		return nil, err
	}
	return k, nil
}

func kindOf(public any) (*kind, error) {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if bits := p.N.BitLen(); bits < minRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits, it must have at least %d", bits, minRSABits)
		} else if bits > maxRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits, it must have at most %d", bits, maxRSABits)
		}
		return rsaKind, nil
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P256():
			return p256Kind, nil
		case elliptic.P384():
			return p384Kind, nil
		case elliptic.P521():
			return p521Kind, nil
		}
	case ed25519.PublicKey:
		return ed25519Kind, nil
	}
	return nil, errors.New("it must be an RSA, P-256, P-384, P-521 or Ed25519 key")
}
