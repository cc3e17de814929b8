package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1" // RFC 6455 asks for it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dial works off jobs until ctx is done.
func (w *swarm) dial(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-w.jobs:
			d := dialler{ctx: ctx, deadline: time.Now().Add(dialTimeout), fd: -1}
			a := arrival{job: j}
			if a.err = d.connect(w, &j); a.err == nil {
				a.rest, a.final, a.err = d.handshake(w.token, &j)
			}
			if a.fd = d.fd; a.err != nil && d.fd >= 0 {
				_ = unix.Close(d.fd)
			}
			j.answer(a)
		}
	}
}

// dialler makes one connection on a descriptor of its own.
type dialler struct {
	ctx      context.Context //nolint:containedctx // it lives as long as one dial
	deadline time.Time
	fd       int
}

func (d *dialler) connect(w *swarm, j *job) (err error) {
	to := sockaddr(j.target.addr.IP, j.target.addr.Port)
	family := unix.AF_INET
	if _, six := to.(*unix.SockaddrInet6); six {
		family = unix.AF_INET6
	}
	d.fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if j.slow {
		if err := unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, slowBuffer); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if w.spread && family == unix.AF_INET {
		// Without this the port is taken at once, for every destination.
		_ = unix.SetsockoptInt(d.fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		from := net.IPv4(127, 0, 0, byte(1+j.number/portsPerAddress))
		if err := unix.Bind(d.fd, sockaddr(from, 0)); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	if err := unix.Connect(d.fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return os.NewSyscallError("connect", err)
	}
	if err := d.wait(unix.POLLOUT); err != nil {
		return err
	}
	if code, err := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		return os.NewSyscallError("connect", errors.Join(err, unix.Errno(code)))
	}
	return nil
}

func sockaddr(ip net.IP, port int) unix.Sockaddr {
	if four := ip.To4(); four != nil {
		return &unix.SockaddrInet4{Port: port, Addr: [4]byte(four)}
	}
	return &unix.SockaddrInet6{Port: port, Addr: [16]byte(ip.To16())}
}

// wait waits until the socket is ready for events.
func (d *dialler) wait(events int16) error {
	for {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(d.deadline) {
			return fmt.Errorf("no handshake within %v", dialTimeout)
		}
		const look = 100 // ms: how late the end of ctx may be noticed
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: events}}, look)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
	}
}

// maxHead is how long a server's answer may be.
const maxHead = 16 << 10

// handshake asks for the room and reads the answer, and what came behind it.
func (d *dialler) handshake(token string, j *job) (rest []byte, final bool, err error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // it never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	if err := d.send(request(token, key, j)); err != nil {
		return nil, false, err
	}
	buf := make([]byte, 0, 2048)
	for {
		buf, err = d.receive(buf)
		if err != nil {
			return nil, false, err
		}
		if head := bytes.Index(buf, []byte("\r\n\r\n")) + 4; head >= 4 {
			final, err := judgeAnswer(buf, key)
			return buf[head:], final, err
		}
		if len(buf) > maxHead {
			return nil, true, fmt.Errorf("an answer of more than %d bytes", maxHead)
		}
	}
}

func request(token, key string, j *job) []byte {
	var b bytes.Buffer
	b.WriteString("GET " + j.target.path + j.room)
	if !j.last.IsZero() {
		b.WriteString("?last_id=" + j.last.String())
	}
	b.WriteString(" HTTP/1.1\r\nHost: " + j.target.host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n")
	if token != "" {
		b.WriteString("Authorization: Bearer " + token + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

func (d *dialler) send(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(d.fd, b)
		switch {
		case n > 0:
			b = b[n:]
		case errors.Is(err, unix.EAGAIN):
			if err := d.wait(unix.POLLOUT); err != nil {
				return err
			}
		case !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("write", err)
		}
	}
	return nil
}

// receive appends what the socket has next.
func (d *dialler) receive(b []byte) ([]byte, error) {
	if cap(b)-len(b) < 512 {
		b = append(make([]byte, 0, 2*cap(b)+512), b...)
	}
	for {
		n, err := unix.Read(d.fd, b[len(b):cap(b)])
		switch {
		case n > 0:
			return b[:len(b)+n], nil
		case err == nil:
			return nil, fmt.Errorf("the handshake: %w", io.ErrUnexpectedEOF)
		case errors.Is(err, unix.EAGAIN):
			if err := d.wait(unix.POLLIN); err != nil {
				return nil, err
			}
		case !errors.Is(err, unix.EINTR):
			return nil, os.NewSyscallError("read", err)
		}
	}
}

// judgeAnswer tells whether the handshake went well; final: asking again is of no use.
func judgeAnswer(b []byte, key string) (final bool, err error) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return true, fmt.Errorf("the answer to the handshake: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // as far as it has come
		busy := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500
		return !busy, fmt.Errorf("refused: %s %s", resp.Status, strings.TrimSpace(string(body)))
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		return true, errors.New("the answer to the handshake has a wrong Sec-WebSocket-Accept")
	}
	return false, nil
}
