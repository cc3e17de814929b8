package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"hash"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/auth"
)

func TestAHeaderThatIsNotPlainIsRefused(t *testing.T) {
	v := verifier(t, auth.Config{})
	for name, c := range map[string]struct{ header, why string }{
		"no alg":                   {`{"typ":"JWT"}`, "alg is missing"},
		"alg empty":                {`{"alg":""}`, "alg is missing"},
		"alg null":                 {`{"alg":null}`, "alg is not a string"},
		"alg a list":               {`{"alg":["HS256"]}`, "alg is not a string"},
		"alg in another case":      {`{"alg":"hs256"}`, "alg \"hs256\""},
		"ALG":                      {`{"ALG":"HS256"}`, "alg is missing"},
		"alg with a space":         {`{"alg":"HS256 "}`, ""},
		"another size":             {`{"alg":"HS512"}`, "none of the configured"},
		"a public key's":           {`{"alg":"RS256"}`, "none of the configured"},
		"unknown":                  {`{"alg":"\n\u001b[31m` + strings.Repeat("A", 900) + `"}`, `alg "\n\x1b[31mAAA`},
		"alg twice":                {`{"alg":"HS256","alg":"HS256"}`, "duplicate"},
		"alg twice, once escaped":  {`{"alg":"HS256","\u0061lg":"none"}`, "duplicate"},
		"crit":                     {`{"alg":"HS256","crit":["exp"]}`, "crit"},
		"crit empty":               {`{"alg":"HS256","crit":[]}`, "crit"},
		"crit escaped":             {`{"alg":"HS256","cri\u0074":["x"],"x":1}`, "crit"},
		"b64 false":                {`{"alg":"HS256","b64":false}`, "b64"},
		"b64 false and crit":       {`{"alg":"HS256","crit":["b64"],"b64":false}`, "crit"},
		"jku":                      {`{"alg":"HS256","jku":"http://127.0.0.1:1/keys"}`, "jku"},
		"jwk":                      {`{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`, "jwk"},
		"x5u":                      {`{"alg":"HS256","x5u":"http://127.0.0.1:1/c"}`, "x5u"},
		"x5c":                      {`{"alg":"HS256","x5c":["AAAA"]}`, "x5c"},
		"compressed":               {`{"alg":"HS256","zip":"DEF"}`, "zip"},
		"encrypted":                {`{"alg":"HS256","enc":"A128GCM"}`, "enc"},
		"kid an object":            {`{"alg":"HS256","kid":{"a":1}}`, "kid is not a string"},
		"kid with a line break":    {`{"alg":"HS256","kid":"a\nlevel=error"}`, "kid has control"},
		"kid with NUL":             {`{"alg":"HS256","kid":"a\u0000"}`, "kid has control"},
		"kid too long":             {`{"alg":"HS256","kid":"` + strings.Repeat("k", 257) + `"}`, "kid of 257 bytes, the limit is 256"},
		"a refresh token":          {`{"alg":"HS256","typ":"Refresh"}`, `typ "Refresh"`},
		"a logout token":           {`{"alg":"HS256","typ":"logout+jwt"}`, "typ"},
		"typ with a fold":          {`{"alg":"HS256","typ":"JWT\u0130"}`, "typ"},
		"typ empty":                {`{"alg":"HS256","typ":""}`, "typ"},
		"typ null":                 {`{"alg":"HS256","typ":null}`, "typ is not a string"},
		"deep":                     {`{"alg":"HS256","x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, "deeper than 32"},
		"not JSON":                 {`alg`, "header is not valid JSON"},
		"no object":                {`["HS256"]`, "header is not an object"},
		"nothing":                  {``, "header is not valid JSON"},
		"two":                      {`{"alg":"HS256"}{}`, "header is not one"},
		"unclosed":                 {`{"alg":"HS256"`, "header is not valid JSON"},
		"no UTF-8":                 {"{\"alg\":\"HS256\",\"x\":\"\xff\"}", "header is not valid JSON"},
		"with a byte order mark":   {"\xef\xbb\xbf" + `{"alg":"HS256"}`, "header is not valid JSON"},
		"a number that is no JSON": {`{"alg":"HS256","x":NaN}`, "header is not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, v, mint(c.header, body(""), secret), auth.ErrToken, c.why)
		})
	}
	for _, header := range []string{
		`{"alg":"HS256","typ":"at+jwt"}`, `{"alg":"HS256","typ":"jwt"}`, `{"alg":"HS256","kid":"` + strings.Repeat("k", 256) + `"}`,
		`{"\u0061lg":"HS256"}`, ` { "alg" : "HS256" , "x" : [{}] } `, `{"alg":"HS256","x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
	} {
		if _, err := v.Verify(mint(header, body(""), secret)); err != nil {
			t.Errorf("%s: %v", header, err)
		}
	}
}

func TestAlgNoneIsNoAlgorithm(t *testing.T) {
	v := verifier(t, auth.Config{})
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "none ", "\\u006eone"} {
		signed := b64(`{"alg":"`+alg+`"}`) + "." + b64(body("")) + "."
		good := mint(plain, body(""), secret)
		for name, token := range map[string]string{
			"unsigned": signed, "with an old signature": signed + good[strings.LastIndexByte(good, '.')+1:], "signed": mint(`{"alg":"`+alg+`"}`, body(""), secret),
		} {
			t.Run(alg+" "+name, func(t *testing.T) { refused(t, v, token, auth.ErrToken, "none of the configured") })
		}
	}
}

func TestAPayloadThatIsNotSoundIsRefused(t *testing.T) {
	v := verifier(t, auth.Config{})
	exp := `"exp":` + in(time.Hour)
	for name, c := range map[string]struct{ payload, why string }{
		"no exp":                   {`{"sub":"ada"}`, "exp is missing"},
		"EXP":                      {`{"sub":"ada","EXP":` + in(time.Hour) + `}`, "exp is missing"},
		"exp a string":             {`{"sub":"ada","exp":"` + in(time.Hour) + `"}`, "exp is not a number"},
		"exp null":                 {`{"sub":"ada","exp":null}`, "exp is not a number"},
		"exp true":                 {`{"sub":"ada","exp":true}`, "exp is not a number"},
		"exp an array":             {`{"sub":"ada","exp":[` + in(time.Hour) + `]}`, "exp is not a number"},
		"exp an object":            {`{"sub":"ada","exp":{}}`, "exp is not a number"},
		"exp negative":             {`{"sub":"ada","exp":-1}`, "exp is not between"},
		"exp 0":                    {`{"sub":"ada","exp":0}`, "exp is not between"},
		"exp beyond all time":      {`{"sub":"ada","exp":253402300800}`, "exp is not between"},
		"exp beyond all numbers":   {`{"sub":"ada","exp":1e400}`, "exp is not between"},
		"exp in the year 9999":     {`{"sub":"ada","exp":253402300799}`, "the limit is"},
		"nbf a string":             {body(`,"nbf":"1"`), "nbf is not a number"},
		"nbf negative":             {body(`,"nbf":-1`), "nbf is not between"},
		"iat null":                 {body(`,"iat":null`), "iat is not a number"},
		"iat an array":             {body(`,"iat":[1]`), "iat is not a number"},
		"no sub":                   {`{` + exp + `}`, "sub: a user id is"},
		"SUB":                      {`{"SUB":"ada",` + exp + `}`, "sub: a user id is"},
		"sub folded":               {"{\"\u017fub\":\"ada\"," + exp + `}`, "sub: a user id is"},
		"sub empty":                {`{"sub":"",` + exp + `}`, "sub: a user id is"},
		"sub null":                 {`{"sub":null,` + exp + `}`, "sub is not a string"},
		"sub a number":             {`{"sub":1,` + exp + `}`, "sub is not a string"},
		"sub an object":            {`{"sub":{"a":"b"},` + exp + `}`, "sub is not a string"},
		"sub too long":             {`{"sub":"` + strings.Repeat("a", 129) + `",` + exp + `}`, "sub of 129 bytes, the limit is 128"},
		"sub of 5 KB":              {`{"sub":"` + strings.Repeat("a", 5000) + `",` + exp + `}`, "sub of 5000 bytes"},
		"sub with a line break":    {`{"sub":"ada\nlevel=error",` + exp + `}`, "sub: a user id is"},
		"sub with NUL":             {`{"sub":"ada\u0000",` + exp + `}`, "sub: a user id is"},
		"sub with a reversal":      {`{"sub":"ada\u202e",` + exp + `}`, "sub: a user id is"},
		"sub twice":                {`{"sub":"ada","sub":"bob",` + exp + `}`, "duplicate"},
		"sub twice, once escaped":  {`{"sub":"ada","s\u0075b":"bob",` + exp + `}`, "duplicate"},
		"something else twice":     {body(`,"x":{"a":1,"a":2}`), "duplicate"},
		"no UTF-8":                 {"{\"sub\":\"a\xff\"," + exp + `}`, "not valid JSON in UTF-8"},
		"no UTF-8 elsewhere":       {body(",\"x\":\"\xc0\xaf\""), "not valid JSON in UTF-8"},
		"a lone surrogate":         {`{"sub":"a\ud800",` + exp + `}`, "not valid JSON in UTF-8"},
		"deep":                     {body(`,"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32)), "deeper than 32"},
		"as deep as will go":       {strings.Repeat("[", 5900), "payload is not an object"},
		"deep in an unknown claim": {`{"x":` + strings.Repeat("[", 5900), "deeper than 32"},
		"no JSON":                  {`sub=ada`, "not valid JSON"},
		"empty":                    {``, "not valid JSON"},
		"an array":                 {`[` + body("") + `]`, "payload is not an object"},
		"a token":                  {mint(plain, body(""), secret), "not valid JSON"},
		"two":                      {body("") + body(""), "not one JSON object"},
		"cut off":                  {strings.TrimSuffix(body(""), "}"), "not valid JSON"},
		"jti null":                 {body(`,"jti":null`), "jti is not a string"},
		"jti too long":             {body(`,"jti":"` + strings.Repeat("j", 257) + `"`), "jti of 257 bytes, the limit is 256"},
		"an ID token":              {body(`,"token_use":"id"`), `token_use "id"`},
		"token_use a list":         {body(`,"token_use":["access"]`), "token_use is not a string"},
		"rt null":                  {body(`,"rt":null`), "rt is not an object"},
		"rt a string":              {body(`,"rt":"rooms"`), "rt is not an object"},
		"rt twice":                 {body(`,"rt":{},"rt":{}`), "duplicate"},
		"rooms null":               {body(`,"rt":{"rooms":null}`), "rt.rooms is not an object"},
		"rooms a list":             {body(`,"rt":{"rooms":["a"]}`), "rt.rooms is not an object"},
		"rooms twice":              {body(`,"rt":{"rooms":{},"rooms":{"*":"rwph"}}`), "duplicate"},
		"a room twice":             {body(`,"rt":{"rooms":{"a":"r","a":"rw"}}`), "duplicate"},
		"a room's grant null":      {body(`,"rt":{"rooms":{"a":null}}`), "an entry of rt.rooms is not a string"},
		"a room's grant a list":    {body(`,"rt":{"rooms":{"a":["r"]}}`), "an entry of rt.rooms is not a string"},
		"a grant of five letters":  {body(`,"rt":{"rooms":{"a":"rwphr"}}`), "the limit is 4"},
		"an unknown operation":     {body(`,"rt":{"rooms":{"a":"rx"}}`), `operations "rx"`},
		"an operation twice":       {body(`,"rt":{"rooms":{"a":"rr"}}`), `operations "rr"`},
		"a star in the middle":     {body(`,"rt":{"rooms":{"a*b":"r"}}`), `room key "a*b"`},
		"no room's name":           {body(`,"rt":{"rooms":{"a\nb\u202e":"r"}}`), `room key "a\nb\u202e"`},
		"max_sessions 0":           {body(`,"rt":{"max_sessions":0}`), "rt.max_sessions is not an integer from 1"},
		"max_sessions negative":    {body(`,"rt":{"max_sessions":-1}`), "rt.max_sessions"},
		"max_sessions too many":    {body(`,"rt":{"max_sessions":1000001}`), "rt.max_sessions"},
		"max_sessions a fraction":  {body(`,"rt":{"max_sessions":1.5}`), "rt.max_sessions"},
		"max_sessions a string":    {body(`,"rt":{"max_sessions":"5"}`), "rt.max_sessions"},
		"max_sessions null":        {body(`,"rt":{"max_sessions":null}`), "rt.max_sessions"},
		"max_sessions beyond all":  {body(`,"rt":{"max_sessions":99999999999999999999}`), "rt.max_sessions"},
		"info too large":           {body(`,"rt":{"info":"` + strings.Repeat("i", 1023) + `"}`), "rt.info: 1025 bytes, the limit is 1024"},
		"info too deep":            {body(`,"rt":{"info":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}`), "rt.info: data nests deeper than 32"},
		"info with a key twice":    {body(`,"rt":{"info":{"a":1,"a":1}}`), "duplicate"},
		"info missing":             {body(`,"rt":{"info":}`), "not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, v, mint(plain, c.payload, secret), auth.ErrToken, c.why)
		})
	}
}

func TestTheLargestOfEverythingPasses(t *testing.T) {
	v := verifier(t, auth.Config{})
	for name, payload := range map[string]string{
		"sub":          `{"exp":` + in(time.Hour) + `,"sub":"` + strings.Repeat("a", 128) + `"}`,
		"jti":          body(`,"jti":"` + strings.Repeat("j", 256) + `"`),
		"info":         body(`,"rt":{"info":"` + strings.Repeat("i", 1022) + `"}`),
		"info, spaced": body(`,"rt":{"info":[` + strings.Repeat(" ", 2000) + `1]}`),
		"info, deep":   body(`,"rt":{"info":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`),
		"max_sessions": body(`,"rt":{"max_sessions":1000000}`),
		"depth":        body(`,"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31)),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := v.Verify(mint(plain, payload, secret)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestATokenInPiecesIsRefused(t *testing.T) {
	v := verifier(t, auth.Config{})
	good := mint(plain, body(""), secret)
	if _, err := v.Verify(good); err != nil {
		t.Fatal(err)
	}
	dot := strings.LastIndexByte(good, '.')
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(digits, good[len(good)-1]) // of 43 digits for 32 bytes: its two low bits are none of theirs
	for name, token := range map[string]string{
		"empty": "", "one part": "abc", "two parts": good[:dot], "four parts": good + ".x", "only dots": "..", "many dots": strings.Repeat(".", 8000),
		"a line break": good[:dot-1] + "\n" + good[dot-1:], "carriage return at the end": good + "\r", "padded": good + "=", "no base64url": good[:dot] + "+" + good[dot:],
		"cut off": good[:len(good)-1], "no signature": good[:dot+1], "a bit too many": good[:len(good)-1] + digits[last+1:last+2], "a space in front": " " + good, "with a scheme": "Bearer " + good,
		"NUL": good + "\x00", "the header of another": b64(`{"alg":"HS256"}`) + good[strings.IndexByte(good, '.'):],
	} {
		t.Run(name, func(t *testing.T) { refused(t, v, token, auth.ErrToken, "") })
	}
}

func TestALongTokenIsNotLookedAt(t *testing.T) {
	v := verifier(t, auth.Config{})
	claim := func(n int) string { return mint(plain, body(`,"x":"`+strings.Repeat("x", n)+`"`), secret) }
	n := 6000
	for len(claim(n+1)) <= auth.MaxTokenBytes {
		n++
	}
	if _, err := v.Verify(claim(n)); err != nil || len(claim(n)) < auth.MaxTokenBytes-2 {
		t.Errorf("%d bytes: %v", len(claim(n)), err)
	}
	refused(t, v, claim(n+1), auth.ErrToken, "the limit is 8192")
	refused(t, v, claim(200_000), auth.ErrToken, "the limit is 8192")
	refused(t, v, mint(plain, strings.Repeat(`{"x":`, 20_000), secret), auth.ErrToken, "the limit is 8192")
}

func TestAnotherHMACWithTheRightSecretIsRefused(t *testing.T) {
	v := verifier(t, auth.Config{})
	for alg, hash := range map[string]func() hash.Hash{"HS384": sha512.New384, "HS512": sha512.New} {
		signed := b64(`{"alg":"`+alg+`"}`) + "." + b64(body(""))
		mac := hmac.New(hash, []byte(secret))
		mac.Write([]byte(signed))
		refused(t, v, signed+"."+b64(string(mac.Sum(nil))), auth.ErrToken, "none of the configured")
	}
}

func TestAPublicKeyIsNoSecret(t *testing.T) {
	for _, algorithms := range [][]string{nil, {"RS256"}, {"RS256", "HS256"}} {
		t.Run(strings.Join(algorithms, " "), func(t *testing.T) {
			keys := []string{file(t, publicPEM(t, rsaPrivate), 0o644)}
			if len(algorithms) == 2 { // HS256 needs a key of its own, or is refused at the start
				t.Setenv(keyVar, secret)
				keys = append(keys, "env:"+keyVar)
			}
			v := verifier(t, auth.Config{Keys: keys, Algorithms: algorithms})
			text := publicPEM(t, rsaPrivate)
			block, _ := pem.Decode([]byte(text))
			for name, key := range map[string]string{
				"PEM": text, "PEM without its newline": strings.TrimSpace(text), "DER": string(block.Bytes), "base64": b64(string(block.Bytes)), "nothing": "",
			} {
				t.Run(name, func(t *testing.T) { refused(t, v, mint(plain, body(""), key), auth.ErrToken, "") })
			}
		})
	}
}

func TestGuessedSecretsAreRefused(t *testing.T) {
	v := verifier(t, auth.Config{})
	sum := sha256.Sum256([]byte(secret))
	for _, key := range []string{"", "secret", "changeme", strings.Repeat("\x00", 32), secret[:31], secret + "\n", string(sum[:])} {
		refused(t, v, mint(plain, body(""), key), auth.ErrToken, "no key verifies the signature")
	}
}
