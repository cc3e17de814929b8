package rpc

import "sync/atomic"

type counter = atomic.Uint64

// Stats are counts since the start.
type Stats struct {
	CredentialMissing, CredentialUnknown, CredentialExpired uint64 // calls refused before they were read

	ScopeMissing       uint64 // calls and items refused because their caller may not
	RateLimited        uint64 // calls and items refused because their caller publishes too much
	ConnectionsRefused uint64 // above Config.Connections
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	return Stats{
		CredentialMissing: s.door.missing.Load(), CredentialUnknown: s.door.unknown.Load(), CredentialExpired: s.door.expired.Load(),
		ScopeMissing: s.chain.scopeMissing.Load(), RateLimited: s.chain.rateLimited.Load(), ConnectionsRefused: s.full.Load(),
	}
}
