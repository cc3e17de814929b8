package auth_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/slack5/realtime/internal/auth"
)

// Keys of every kind, made once.
var (
	rsaPrivate = must(rsa.GenerateKey(rand.Reader, 2048))
	p256       = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384       = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	p521       = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	_, ed, _   = ed25519.GenerateKey(rand.Reader)
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func publicPEM(tb testing.TB, k crypto.Signer) string {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return block("PUBLIC KEY", der)
}

func privatePEM(tb testing.TB, k any) string {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		tb.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func certificatePEM(tb testing.TB, k crypto.Signer) string {
	tb.Helper()
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, of, of, k.Public(), k)
	if err != nil {
		tb.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

// file writes one that has this mode, whatever the umask.
func file(tb testing.TB, content string, mode os.FileMode) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "key")
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode)); err != nil {
		tb.Fatal(err)
	}
	return path
}

var signers = map[string]crypto.Signer{
	"RS256": rsaPrivate, "RS384": rsaPrivate, "RS512": rsaPrivate, "PS256": rsaPrivate, "PS384": rsaPrivate, "PS512": rsaPrivate,
	"ES256": p256, "ES384": p384, "ES512": p521, "EdDSA": ed,
}

// sign makes a token as other programs do.
func sign(tb testing.TB, alg string, key any) string {
	tb.Helper()
	token, err := jwt.NewWithClaims(jwt.GetSigningMethod(alg), jwt.MapClaims{"sub": "ada", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(key)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func TestEveryAlgorithmVerifiesWithItsKeyAndWithNoOther(t *testing.T) {
	t.Setenv(keyVar, secret)
	tokens := map[string]string{"HS256": sign(t, "HS256", []byte(secret)), "HS384": sign(t, "HS384", []byte(secret)), "HS512": sign(t, "HS512", []byte(secret))}
	keys := map[string]string{"HS256": "env:" + keyVar, "HS384": "env:" + keyVar, "HS512": "env:" + keyVar}
	for alg, k := range signers {
		tokens[alg], keys[alg] = sign(t, alg, k), file(t, publicPEM(t, k), 0o644)
	}
	for alg, key := range keys {
		v := verifier(t, auth.Config{Keys: []string{key}, Algorithms: []string{alg}})
		for other, token := range tokens {
			if _, err := v.Verify(token); (err == nil) != (alg == other) || err != nil && !errors.Is(err, auth.ErrToken) {
				t.Errorf("a verifier of %s about a token of %s: %v", alg, other, err)
			}
		}
	}
}

func TestWithoutAlgorithmsEachKeyHasTheOneOfItsKind(t *testing.T) {
	t.Setenv(keyVar, secret)
	keys := []string{"env:" + keyVar}
	for _, k := range []crypto.Signer{rsaPrivate, p256, p384, p521, ed} {
		keys = append(keys, file(t, publicPEM(t, k), 0o644))
	}
	v := verifier(t, auth.Config{Keys: keys})
	for alg, want := range map[string]bool{
		"HS256": true, "HS384": false, "HS512": false, "RS256": true, "RS384": false, "RS512": false, "PS256": false, "PS384": false, "PS512": false,
		"ES256": true, "ES384": true, "ES512": true, "EdDSA": true,
	} {
		var key any = []byte(secret)
		if s, ok := signers[alg]; ok {
			key = s
		}
		if _, err := v.Verify(sign(t, alg, key)); (err == nil) != want {
			t.Errorf("%s: %v, want it accepted: %v", alg, err, want)
		}
	}
}

func TestAKeyComesInManyForms(t *testing.T) {
	rsaDER := x509.MarshalPKCS1PrivateKey(rsaPrivate)
	ecDER := must(x509.MarshalECPrivateKey(p256))
	for name, c := range map[string]struct {
		content, alg string
		mode         os.FileMode
	}{
		"public":                             {publicPEM(t, rsaPrivate), "RS256", 0o644},
		"public, PKCS #1":                    {block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaPrivate.PublicKey)), "RS256", 0o644},
		"certificate":                        {certificatePEM(t, p256), "ES256", 0o644},
		"certificate with text and a chain":  {"Certificate:\n  Data\n" + certificatePEM(t, ed) + certificatePEM(t, p256), "EdDSA", 0o644},
		"private":                            {privatePEM(t, p384), "ES384", 0o640},
		"private, PKCS #1":                   {block("RSA PRIVATE KEY", rsaDER), "RS256", 0o600},
		"private, SEC 1, behind parameters":  {block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}) + block("EC PRIVATE KEY", ecDER), "ES256", 0o600},
		"private, Ed25519":                   {privatePEM(t, ed), "EdDSA", 0o400},
		"secret":                             {secret, "HS256", 0o600},
		"secret with a newline":              {secret + "\n", "HS256", 0o600},
		"secret with a newline from Windows": {secret + "\r\n", "HS256", 0o660},
	} {
		t.Run(name, func(t *testing.T) {
			var key any = []byte(secret)
			if s, ok := signers[c.alg]; ok {
				key = s
			}
			v := verifier(t, auth.Config{Keys: []string{file(t, c.content, c.mode)}})
			if _, err := v.Verify(sign(t, c.alg, key)); err != nil {
				t.Errorf("from a file: %v", err)
			}
			if strings.HasPrefix(c.content, secret) {
				return
			}
			t.Setenv("AUTH_TEST_FORM", c.content)
			if _, err := verifier(t, auth.Config{Keys: []string{"env:AUTH_TEST_FORM"}}).Verify(sign(t, c.alg, key)); err != nil {
				t.Errorf("from a variable: %v", err)
			}
		})
	}
}

func TestABadKeyIsRefusedByNameAndNeverByValue(t *testing.T) {
	weakRSA := must(rsa.GenerateKey(rand.Reader, 1024))
	x25519 := must(ecdh.X25519().GenerateKey(rand.Reader))
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	spki, _ := pem.Decode([]byte(publicPEM(t, rsaPrivate)))
	for name, c := range map[string]struct {
		content, why string
		mode         os.FileMode
	}{
		"empty":                       {"", "a secret of 0 bytes, it must have at least 32", 0o600},
		"31 bytes":                    {secret[:31], "a secret of 31 bytes", 0o600},
		"31 bytes and a newline":      {secret[:31] + "\n", "a secret of 31 bytes", 0o600},
		"one byte":                    {strings.Repeat("\x00", 64), "repeats itself", 0o600},
		"a word":                      {strings.Repeat("changeme", 5), "repeats itself", 0o600},
		"a word, cut off":             {strings.Repeat("changeme", 5)[:37], "repeats itself", 0o600},
		"zeros with an end":           {strings.Repeat("0", 40) + "1", "repeats itself", 0o600},
		"twice the same":              {secret + secret, "repeats itself", 0o600},
		"a secret for all":            {secret, "chmod o-r", 0o604},
		"a private key for all":       {privatePEM(t, p256), "chmod o-r", 0o644},
		"RSA of 1024 bits":            {publicPEM(t, weakRSA), "1024 bits, it must have at least 2048", 0o600},
		"RSA of 1024 bits, private":   {privatePEM(t, weakRSA), "1024 bits, it must have at least 2048", 0o600},
		"P-224":                       {publicPEM(t, p224), "P-256", 0o600},
		"X25519":                      {privatePEM(t, x25519), "Ed25519 key", 0o600},
		"an encrypted key":            {block("ENCRYPTED PRIVATE KEY", []byte("0123")), "unencrypted", 0o600},
		"broken PEM":                  {"-----BEGIN PUBLIC KEY-----\n" + secret, "broken PEM", 0o600},
		"PEM of something else":       {block("PUBLIC KEY", []byte(secret)), "asn1", 0o600},
		"parameters alone":            {block("EC PARAMETERS", []byte(secret)), "broken PEM", 0o600},
		"a public key as DER":         {string(spki.Bytes), "public key", 0o600},
		"a public key as bare base64": {base64.StdEncoding.EncodeToString(spki.Bytes), "public key", 0o600},
		"PKCS #1 as DER":              {string(x509.MarshalPKCS1PublicKey(&rsaPrivate.PublicKey)), "public key", 0o600},
		"a JWK":                       {`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, "JWK", 0o600},
		"a key of ssh":                {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ someone@somewhere", "public key", 0o600},
		"a huge file":                 {strings.Repeat(secret, 3000), "larger than 65536 bytes", 0o600},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t, c.content, c.mode)
			_, err := auth.New(auth.Config{Keys: []string{path}})
			if err == nil || !strings.Contains(err.Error(), c.why) || !strings.HasPrefix(err.Error(), "key "+path+": ") {
				t.Fatalf("New: %v, want %q and the key's name", err, c.why)
			}
			for line := range strings.FieldsSeq(c.content) {
				if len(line) > 16 && strings.Contains(err.Error(), line) {
					t.Errorf("it quotes the key: %v", err)
				}
			}
		})
	}
}

func TestAKeyThatIsNotThereIsNamed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("AUTH_TEST_EMPTY", "")
	t.Setenv("AUTH_TEST_SHORT", "tiny-value")
	for name, want := range map[string]string{
		dir + "/none":             "key " + dir + "/none: no such file or directory",
		dir:                       "key " + dir + ": is a directory",
		"":                        "key : no such file or directory",
		"env:AUTH_TEST_EMPTY":     "key env:AUTH_TEST_EMPTY: the variable is not set",
		"env:":                    "key env:: the variable is not set",
		"env:AUTH_TEST_SHORT":     "key env:AUTH_TEST_SHORT: a secret of 10 bytes, it must have at least 32: openssl rand -base64 32 makes one",
		publicPEM(t, rsaPrivate):  "a key is given as its file's path or env:NAME, not as its value",
		"env:AUTH_TEST_UNDEFINED": "key env:AUTH_TEST_UNDEFINED: the variable is not set",
	} {
		if _, err := auth.New(auth.Config{Keys: []string{name}}); err == nil || err.Error() != want {
			t.Errorf("New with key %.40q: %v, want %q", name, err, want)
		}
	}
	_, err := auth.New(auth.Config{Keys: []string{"env:AUTH_TEST_EMPTY", dir}})
	if err == nil || !strings.Contains(err.Error(), "AUTH_TEST_EMPTY") || !strings.Contains(err.Error(), dir) {
		t.Errorf("of two bad keys: %v, want both named", err)
	}
}

func TestAConfigurationThatCannotBeMeantIsRefused(t *testing.T) {
	t.Setenv(keyVar, secret)
	shared, rsaFile := "env:"+keyVar, file(t, publicPEM(t, rsaPrivate), 0o644)
	for name, c := range map[string]struct {
		cfg auth.Config
		why string
	}{
		"no keys":                      {auth.Config{}, "no key"},
		"none":                         {auth.Config{Keys: []string{shared}, Algorithms: []string{"none"}}, `algorithm "none" is not one of HS256, HS384, HS512, RS256`},
		"another case":                 {auth.Config{Keys: []string{shared}, Algorithms: []string{"hs256"}}, `algorithm "hs256" is not one of`},
		"an unknown algorithm":         {auth.Config{Keys: []string{shared}, Algorithms: []string{"HS256", "HS1"}}, `algorithm "HS1"`},
		"an algorithm without key":     {auth.Config{Keys: []string{shared}, Algorithms: []string{"HS256", "RS256"}}, "algorithm RS256 fits none of the keys"},
		"a public key as a secret":     {auth.Config{Keys: []string{rsaFile}, Algorithms: []string{"HS256"}}, "algorithm HS256 fits none of the keys"},
		"another curve":                {auth.Config{Keys: []string{file(t, publicPEM(t, p256), 0o644)}, Algorithms: []string{"ES384"}}, "algorithm ES384 fits none of the keys"},
		"a key without algorithm":      {auth.Config{Keys: []string{shared, rsaFile}, Algorithms: []string{"HS256"}}, "key " + rsaFile + ": none of the algorithms fits an RSA key, it takes RS256"},
		"a negative lifetime":          {auth.Config{Keys: []string{shared}, MaxLifetime: -1}, "negative"},
		"bad rooms for those who none": {auth.Config{Keys: []string{shared}, Rooms: map[string]string{"a*b": "r"}}, `grants of tokens that say none: room key "a*b"`},
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := auth.New(c.cfg); err == nil || v != nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("New: %v, want %q", err, c.why)
			}
		})
	}
}

func TestAPSSSaltIsAsLongAsItsHash(t *testing.T) {
	path := file(t, publicPEM(t, rsaPrivate), 0o644)
	for alg, hash := range map[string]crypto.Hash{"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512} {
		v := verifier(t, auth.Config{Keys: []string{path}, Algorithms: []string{alg}})
		signed := b64(`{"alg":"`+alg+`"}`) + "." + b64(body(""))
		h := hash.New()
		h.Write([]byte(signed))
		for _, salt := range []int{0, hash.Size() - 1, hash.Size(), hash.Size() + 1, rsa.PSSSaltLengthAuto} {
			sig, err := rsa.SignPSS(rand.Reader, rsaPrivate, hash, h.Sum(nil), &rsa.PSSOptions{SaltLength: salt})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(signed + "." + b64(string(sig))); (err == nil) != (salt == hash.Size()) {
				t.Errorf("%s with a salt of %d bytes: %v", alg, salt, err)
			}
		}
	}
	if got := fmt.Sprint(jwt.SigningMethodPS256.VerifyOptions.SaltLength); got != fmt.Sprint(rsa.PSSSaltLengthAuto) {
		t.Errorf("the library's own method is changed for the whole program: salt %s", got)
	}
}

func TestABentSignatureIsRefused(t *testing.T) {
	for alg, k := range signers {
		v := verifier(t, auth.Config{Keys: []string{file(t, publicPEM(t, k), 0o644)}, Algorithms: []string{alg}})
		token := sign(t, alg, k)
		dot := strings.LastIndexByte(token, '.')
		sig := must(base64.RawURLEncoding.DecodeString(token[dot+1:]))
		flipped := []byte(string(sig))
		flipped[len(flipped)/2] ^= 1
		for name, bent := range map[string][]byte{"empty": {}, "zeros": make([]byte, len(sig)), "a bit changed": flipped, "one byte less": sig[1:], "one byte more": append(slices.Clip(sig), 0)} {
			if _, err := v.Verify(token[:dot+1] + b64(string(bent))); !errors.Is(err, auth.ErrToken) {
				t.Errorf("%s, %s: %v", alg, name, err)
			}
		}
	}
}
