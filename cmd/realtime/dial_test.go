package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// write makes a file of the test's and returns its name.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// certificate is one for 127.0.0.1 that trusts itself, and the file of it.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func published(*realtimev1.PublishRequest) (*realtimev1.PublishResponse, error) {
	return &realtimev1.PublishResponse{Receipt: &realtimev1.Receipt{Id: "ID"}}, nil
}

func TestTheKeyGoesAlongWithEachCall(t *testing.T) {
	addr := (&fake{publish: published, key: "0123456789abcdef"}).serve(t)
	t.Setenv("A_KEY", "0123456789abcdef")
	for _, key := range []string{write(t, "0123456789abcdef\n"), "env:A_KEY"} {
		if out, err := command(t, "publish", addr, "--key="+key, "a", "1"); err != nil || out != "ID\n" {
			t.Errorf("publish --key=%s: %q, %v", key, out, err)
		}
	}
	t.Setenv("REALTIME_KEY", "env:A_KEY")
	if _, err := command(t, "publish", addr, "a", "1"); err != nil {
		t.Errorf("named by the environment: %v", err)
	}
}

func TestWithTLSTheNodeMustBeTheOneThatIsTrusted(t *testing.T) {
	pair, ca := certificate(t)
	_, another := certificate(t)
	addr := (&fake{publish: published, key: "0123456789abcdef"}).serve(t, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	key := "--key=" + write(t, "0123456789abcdef")
	if out, err := command(t, "publish", addr, key, "--tls-ca="+ca, "a", "1"); err != nil || out != "ID\n" {
		t.Errorf("with its certificate: %q, %v", out, err)
	}
	for _, option := range []string{"--tls-ca=" + another, "--tls"} {
		if _, err := command(t, "publish", addr, key, option, "a", "1"); err == nil || !strings.HasPrefix(err.Error(), "no TLS with 127.0.0.1:") || !strings.Contains(err.Error(), "--tls-ca") {
			t.Errorf("with %s: %v", option, err)
		}
	}
	if _, err := command(t, "publish", addr, "a", "1"); err == nil || !strings.Contains(err.Error(), "no node answers") {
		t.Errorf("without TLS: %v", err)
	}
	plain := (&fake{}).serve(t)
	if _, err := command(t, "publish", plain, "--tls-ca="+ca, "a", "1"); err == nil || !strings.Contains(err.Error(), "no TLS with") {
		t.Errorf("TLS with one that has none: %v", err)
	}
}

func TestANodeThatAsksForACertificateIsShownOne(t *testing.T) {
	server, ca := certificate(t)
	ours, mine := certificate(t)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ours.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := write(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	leaf, err := x509.ParseCertificate(ours.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AddCert(leaf)
	addr := (&fake{publish: published}).serve(t, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: known})))
	if out, err := command(t, "publish", addr, "--tls-ca="+ca, "--tls-cert="+mine, "--tls-key="+key, "a", "1"); err != nil || out != "ID\n" {
		t.Errorf("shown: %q, %v", out, err)
	}
	if _, err := command(t, "publish", addr, "--tls-ca="+ca, "a", "1"); err == nil {
		t.Error("not shown, and taken")
	}
	for _, options := range [][]string{{"--tls-cert=" + mine}, {"--tls-key=" + key}, {"--tls-cert=" + mine, "--tls-key=" + mine}} {
		if _, err := command(t, append([]string{"publish", addr, "a", "1"}, options...)...); exitCode(err) != 2 || !strings.Contains(err.Error(), "--tls-key") {
			t.Errorf("%v: %v", options, err)
		}
	}
}

func TestAKeyDoesNotLeaveThisMachineInPlainText(t *testing.T) {
	_, ca := certificate(t)
	for name, c := range map[string]struct {
		d    dial
		want string
	}{
		"another machine":            {dial{Addr: "10.0.0.1:9090", Key: "k"}, "--tls"},
		"a name":                     {dial{Addr: "node.example:9090", Key: "k"}, "node.example:9090"},
		"a name with loopback in it": {dial{Addr: "127.0.0.1.example:9090", Key: "k"}, "--insecure"},
		"another scheme":             {dial{Addr: "dns:///127.0.0.1:9090", Key: "k"}, "--insecure"},
		"wanted":                     {dial{Addr: "10.0.0.1:9090", Key: "k", Insecure: true}, ""},
		"with TLS":                   {dial{Addr: "10.0.0.1:9090", Key: "k", TLS: true}, ""},
		"with a certificate":         {dial{Addr: "10.0.0.1:9090", Key: "k", TLSCA: ca}, ""},
		"loopback":                   {dial{Addr: "[::1]:9090", Key: "k"}, ""},
		"no key":                     {dial{Addr: "10.0.0.1:9090"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.d.Key != "" {
				c.d.Key = write(t, "0123456789abcdef")
			}
			if err := c.d.AfterApply(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q in it", err, c.want)
			}
		})
	}
	if _, err := command(t, "publish", "--addr=10.0.0.1:9090", "--key="+write(t, "0123456789abcdef"), "a", "1"); exitCode(err) != 2 {
		t.Errorf("%v: want it refused before anybody is called", err)
	}
}

func TestWhatIsWrongWithAKeyIsToldWithoutIt(t *testing.T) {
	t.Setenv("EMPTY", "")
	for name, c := range map[string]struct{ option, want string }{
		"the key itself":       {"hunter2hunter2hunter2", "it takes the name of a file"},
		"no variable":          {"env:DOES_NOT_EXIST", "nothing is in there"},
		"an empty variable":    {"env:EMPTY", "nothing is in there"},
		"an empty file":        {write(t, " \n"), "nothing is in there"},
		"two lines":            {write(t, "hunter2\nhunter2"), "no key"},
		"bytes that are none":  {write(t, "hunter2\x00"), "no key"},
		"letters beyond ASCII": {write(t, "hünter2"), "no key"},
		"a directory":          {t.TempDir(), "directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := command(t, "publish", "--key="+c.option, "a", "1")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "unter2") || !strings.HasPrefix(err.Error(), "--key: ") {
				t.Errorf("%v, want %q in it and no key", err, c.want)
			}
			if exitCode(err) != 2 {
				t.Errorf("exit code %d", exitCode(err))
			}
		})
	}
	for _, ca := range []string{"/does/not/exist", write(t, "no PEM")} {
		if _, err := command(t, "publish", "--tls-ca="+ca, "a", "1"); exitCode(err) != 2 || !strings.Contains(err.Error(), ca) {
			t.Errorf("--tls-ca=%s: %v", ca, err)
		}
	}
}

func TestExitCodesTellWhoIsWrong(t *testing.T) {
	refusing := (&fake{publish: func(*realtimev1.PublishRequest) (*realtimev1.PublishResponse, error) {
		return nil, refused(codes.InvalidArgument, "ROOM_INVALID", "a room name is something else")
	}}).serve(t)
	for _, c := range []struct {
		code int
		args []string
	}{
		{2, []string{"nonsense"}},
		{2, []string{"publish"}},
		{2, []string{"publish", "a", "1", "--nonsense"}},
		{2, []string{"serve", "--dev", "--max-sessions=0"}},
		{2, []string{"config", "--dev", "--max-sessions=0"}},
		{2, []string{"history", "a", "--limit=0"}},
		{2, []string{"history", "a", "--after=x", "--before=y"}},
		{2, []string{"history", "a", "--all", "--before=y"}},
		{2, []string{"subscribe"}},
		{2, []string{"subscribe", "a", "--after=b=ID"}},
		{2, []string{"subscribe", "a", "--after=a=ID", "--from=ID"}},
		{2, []string{"subscribe", "a", "--count=-1"}},
		{2, []string{"presence", "a", "--user=b"}},
		{2, []string{"presence", "--watch"}},
		{1, []string{"publish", refusing, "a", "1"}},
		{1, []string{"publish", "--addr=127.0.0.1:1", "a", "1"}},
		{1, []string{"healthcheck", "--ops-addr=127.0.0.1:1"}},
	} {
		out, err := command(t, c.args...)
		if err == nil || exitCode(err) != c.code || strings.Contains(err.Error(), "\n") || out != "" {
			t.Errorf("%q: exit code %d, printed %q: %v, want %d and one line", c.args, exitCode(err), out, err, c.code)
		}
	}
	if exitCode(errors.New("x")) != 1 {
		t.Error("any other error is 1")
	}
}
