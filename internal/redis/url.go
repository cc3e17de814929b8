package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

const defaultPort = "6379"

// params are those of a URL.
var params = []string{"addr", "master_set", "sentinel_username", "sentinel_password"}

// ParseURL reads where Redis is: HOST:PORT, or redis://[USER:PASSWORD@]HOST[:PORT][/DB], with rediss:// over TLS. Further
// addresses are ?addr=HOST:PORT, repeatable, of a Cluster; with &master_set=NAME all of them are Sentinels that tell where that
// one is, asked with &sentinel_username and &sentinel_password if there are some. An error never shows a password.
func ParseURL(text string) (rueidis.ClientOption, error) {
	if !strings.Contains(text, "://") {
		addr, err := parseAddr(text)
		return rueidis.ClientOption{InitAddress: []string{addr}}, err
	}
	u, err := url.Parse(text)
	// An @ behind the host is a password's that was cut in two, and so may be what seems to be the host.
	if err != nil || u.Fragment != "" || strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
		return rueidis.ClientOption{}, errors.New("it is no URL: write redis://USER:PASSWORD@HOST:PORT/DB, and percent-encode what of the password is not a letter or a digit")
	}
	var o rueidis.ClientOption
	switch u.Scheme {
	case "redis":
	case "rediss":
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		o.Sentinel.TLSConfig = o.TLSConfig
	default:
		return o, fmt.Errorf("the scheme %q is not known: it is redis, or rediss for TLS", u.Scheme)
	}
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()
	if db := strings.TrimPrefix(u.Path, "/"); db != "" {
		if o.SelectDB, err = strconv.Atoi(db); err != nil || o.SelectDB < 0 {
			return o, fmt.Errorf("the path %q is not the number of a database", u.Path)
		}
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, errors.New("what follows the ? is not NAME=VALUE&NAME=VALUE")
	}
	for name := range q {
		switch {
		case slices.Contains(params, name):
		case q.Has("sentinel_password"): // what seems to be a name may be a piece of it
			return o, fmt.Errorf("a parameter is not known: there are %s; percent-encode what of a password is not a letter or a digit", strings.Join(params, ", "))
		default:
			return o, fmt.Errorf("the parameter %q is not known: there are %s", name, strings.Join(params, ", "))
		}
	}
	for _, text := range slices.Concat([]string{u.Host}, q["addr"]) {
		addr, err := parseAddr(text)
		if err != nil {
			return o, err
		}
		o.InitAddress = append(o.InitAddress, addr)
	}
	o.Sentinel.MasterSet, o.Sentinel.Username, o.Sentinel.Password = q.Get("master_set"), q.Get("sentinel_username"), q.Get("sentinel_password")
	if o.Sentinel.MasterSet == "" && o.Sentinel.Username+o.Sentinel.Password != "" {
		return o, errors.New("sentinel_username and sentinel_password are for Sentinels: name what they watch with master_set=NAME")
	}
	return o, nil
}

// parseAddr completes HOST[:PORT].
func parseAddr(text string) (string, error) {
	if strings.ContainsAny(text, "@/? ") { // perhaps a URL without its scheme: it may have a password
		return "", errors.New("an address is HOST:PORT; with a password it is redis://USER:PASSWORD@HOST:PORT")
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil { // no port?
		if host, port, err = net.SplitHostPort(text + ":" + defaultPort); err != nil {
			return "", fmt.Errorf("%q is not HOST:PORT", text)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", fmt.Errorf("%q is not HOST:PORT", text)
	}
	return net.JoinHostPort(host, port), nil
}
