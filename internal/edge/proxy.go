package edge

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/realclientip/realclientip-go"
)

// address is what limits by address go by: an IPv4 address, or the /64 of an IPv6 one, since whoever has one has all of it. No
// two are alike: no /64 in use begins with four zero bytes. 0: this host, or unknown. It has no limits.
type address uint64

func addressOf(a netip.Addr) address {
	a = a.Unmap()
	switch {
	case !a.IsValid() || a.IsLoopback():
		return 0
	case a.Is4():
		four := a.As4()
		return address(binary.BigEndian.Uint32(four[:]))
	}
	sixteen := a.As16()
	return address(binary.BigEndian.Uint64(sixteen[:]))
}

// proxies tells from where requests come: from the peer, or if that is a proxy of the list from where it says.
type proxies struct {
	trusted  []netip.Prefix
	strategy realclientip.RightmostTrustedRangeStrategy
	log      *slog.Logger
	told     once
}

const forwardedFor = "X-Forwarded-For"

func newProxies(list []string, log *slog.Logger) (*proxies, error) {
	p := &proxies{log: log}
	var nets []net.IPNet
	for _, s := range list {
		n, err := parseProxy(s)
		if err != nil {
			return nil, err
		}
		p.trusted = append(p.trusted, n)
		nets = append(nets, net.IPNet{IP: n.Addr().AsSlice(), Mask: net.CIDRMask(n.Bits(), n.Addr().BitLen())})
	}
	if nets == nil {
		return p, nil
	}
	var err error
	p.strategy, err = realclientip.NewRightmostTrustedRangeStrategy(forwardedFor, nets)
	return p, err
}

func parseProxy(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
		n, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || n.Addr().Is4In6() {
		return n, fmt.Errorf("trusted proxy %q: it is an address or a network, 10.0.0.0/8", s)
	}
	return n.Masked(), nil
}

func (p *proxies) trusts(a netip.Addr) bool {
	for _, n := range p.trusted {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// sender is who sent a request. What a peer that is not trusted says of it is only worth a line in the log.
func (p *proxies) sender(r *http.Request) netip.Addr {
	peer := parseHost(r.RemoteAddr)
	if len(r.Header[forwardedFor]) == 0 {
		return peer
	}
	if !p.trusts(peer) {
		if s := peer.String(); p.told.first(s) {
			p.log.Warn("X-Forwarded-For of a peer that is not trusted: limits by address take it for the sender", "peer", s, "hint", "--trusted-proxy "+s)
		}
		return peer
	}
	// It is not empty only if the last that is no proxy of ours is an address.
	if a, err := netip.ParseAddr(p.strategy.ClientIP(r.Header, r.RemoteAddr)); err == nil {
		return a.WithZone("")
	}
	return peer
}

// parseHost reads HOST:PORT; the zero Addr: it is none.
func parseHost(s string) netip.Addr {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// ProxyListener takes from trusted peers, addresses and networks, connections that begin with a header of the PROXY protocol,
// and only such: the header says who connects. Other peers connect for themselves and may not begin so.
func ProxyListener(l net.Listener, trusted []string) (net.Listener, error) {
	p, err := newProxies(trusted, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return &proxyproto.Listener{
		Listener: l, ReadHeaderTimeout: proxyHeaderTimeout,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if o.Upstream != nil && p.trusts(parseHost(o.Upstream.String())) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.REJECT, nil
		},
	}, nil
}

// proxyHeaderTimeout is for the proxy's own words, its first.
const proxyHeaderTimeout = 5 * time.Second

// unwrap takes out the connection that a proxy's header stood before, and what was read of it along with the header.
func unwrap(nc net.Conn, held []byte) (net.Conn, []byte) {
	wrapped, ok := nc.(*proxyproto.Conn)
	if !ok {
		return nc, held
	}
	inner := wrapped.Raw()
	_ = inner.SetReadDeadline(time.Unix(1, 0)) // what the buffer does not have is not waited for
	for {
		var b [256]byte
		n, err := wrapped.Read(b[:])
		held = append(held, b[:n]...)
		if err != nil || n == 0 {
			break
		}
	}
	_ = inner.SetReadDeadline(time.Time{})
	return inner, held
}
