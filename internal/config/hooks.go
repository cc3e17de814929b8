package config

import (
	"maps"
	"net"
	"slices"
	"strings"
)

// hookNames are what hooks may be asked about.
var hookNames = []string{"connect", "subscribe", "message", "disconnect"}

// HooksOn names the hooks that are asked, none without --hooks-addr.
func (c *Serve) HooksOn() []string {
	switch {
	case c.HooksAddr == "":
		return nil
	case len(c.Hook) == 0:
		return hookNames
	}
	return c.Hook
}

// HooksDecide tells whether nobody comes in but whom a hook lets in.
func (c *Serve) HooksDecide() bool {
	return slices.Contains(c.HooksOn(), "connect") && c.HooksFail["connect"] != "open"
}

// HooksTLS tells whether hooks are asked over TLS.
func (c *Serve) HooksTLS() bool {
	return c.HooksTLSCA != "" || !c.HooksInsecure && !Loopback(c.HooksAddr)
}

func (c *Serve) checkHooks(p *problems) {
	if c.HooksAddr == "" {
		if len(c.Hook)+len(c.HooksHeader)+len(c.HooksFail)+len(c.HooksTimeout)+len(c.HooksConcurrency) > 0 || c.HooksTLSCA != "" || c.HooksKey != "" || c.HooksInsecure {
			p.add("--hook and --hooks-... say nothing without --hooks-addr")
		}
		return
	}
	if host, _, err := net.SplitHostPort(c.HooksAddr); err != nil || host == "" {
		p.add("--hooks-addr: %q is not HOST:PORT", c.HooksAddr)
	}
	if c.HooksInsecure && c.HooksTLSCA != "" {
		p.add("--hooks-insecure and --hooks-tls-ca: say one of them, it is TLS or it is not")
	}
	if c.HooksKey != "" {
		if _, err := c.HooksKey.Read(MinGRPCKey); err != nil {
			p.add("--hooks-key: %w", err)
		}
	}
	on := c.HooksOn()
	if slices.Contains(on, "subscribe") && !slices.Contains(on, "connect") {
		p.add("--hook: subscribe needs connect: it is connect that is asked about the rooms of a session's URL")
	}
	c.checkHookRules(p, on)
}

// checkHookRules checks what is said for single hooks. Nothing is refused at the hook disconnect, and one call is made at a time.
func (c *Serve) checkHookRules(p *problems, on []string) {
	known := func(option, name string) bool {
		switch {
		case !slices.Contains(hookNames, name):
			p.add("--%s: %q is no hook: they are %s", option, name, strings.Join(hookNames, ", "))
		case option != "hook" && !slices.Contains(on, name):
			p.add("--%s: %s is not on, --hook says which are", option, name)
		case name == "disconnect" && (option == "hooks-fail" || option == "hooks-concurrency"):
			p.add("--%s says nothing for disconnect: it is repeated until it is taken, one call at a time", option)
		default:
			return true
		}
		return false
	}
	for _, name := range on {
		known("hook", name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.HooksFail)) {
		if v := c.HooksFail[name]; known("hooks-fail", name) && v != "open" && v != "closed" {
			p.add("--hooks-fail: %s=%s: it is open or closed", name, v)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.HooksTimeout)) {
		if known("hooks-timeout", name) && c.HooksTimeout[name] <= 0 {
			p.add("--hooks-timeout: %s must be above 0", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.HooksConcurrency)) {
		if known("hooks-concurrency", name) && c.HooksConcurrency[name] <= 0 {
			p.add("--hooks-concurrency: %s must be above 0", name)
		}
	}
}
