package rpc

import (
	"crypto/x509"
	"slices"
	"strings"
)

// Name is one that a caller's certificate may bear: a DNS name or a URI among its subject alternative names.
type Name struct {
	Name   string
	Scopes Scope
}

// Names are those that may call by certificate. The first that a certificate bears is who calls.
type Names []Name

// Allow tells whether a certificate bears one of the names.
func (n Names) Allow(c *x509.Certificate) bool { return n.find(c) >= 0 }

// find returns the place of the first name that a certificate bears; -1: it bears none.
func (n Names) find(c *x509.Certificate) int {
	return slices.IndexFunc(n, func(one Name) bool {
		for _, name := range c.DNSNames {
			if strings.EqualFold(name, one.Name) {
				return true
			}
		}
		for _, u := range c.URIs {
			if u.String() == one.Name {
				return true
			}
		}
		return false
	})
}
