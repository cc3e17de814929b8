package edge

// Why a session is away.
const (
	awaySaid   = 1 << iota // it said so, until it says online
	awaySilent             // it has sent nothing for Config.AwayAfter
)

// setAway adds and takes away reasons. Handler and wheel both call it: under the lock presence hears of them in order.
func (s *session) setAway(add, take uint8) {
	if s.here == nil {
		return
	}
	s.e.awayMu.Lock()
	defer s.e.awayMu.Unlock()
	s.setAwayLocked(add, take)
}

func (s *session) setAwayLocked(add, take uint8) {
	was := s.away
	s.away = was&^take | add
	if (was == 0) != (s.away == 0) {
		s.here.Away(s.away != 0)
	}
}

// active is the handler's: the session has sent a frame.
func (s *session) active() {
	if s.here == nil {
		return
	}
	s.spoke.Store(uint32(s.e.wheel.now()))
	s.here.Active()
	if s.silent.Load() {
		s.e.awayMu.Lock()
		defer s.e.awayMu.Unlock()
		s.silent.Store(false)
		s.setAwayLocked(0, awaySilent)
	}
}

// idle is the wheel's: it notes at now that the session has been silent for long, and says when to ask again; 0: never.
func (s *session) idle(now tick) tick {
	w := s.e.wheel
	if s.here == nil || s.e.cfg.AwayAfter < 0 || s.silent.Load() {
		return 0
	}
	at := tick(s.spoke.Load()) + w.away
	if now < at {
		return at
	}
	s.e.awayMu.Lock() // so that who sees silent also finds the session away
	defer s.e.awayMu.Unlock()
	s.silent.Store(true)
	if at := tick(s.spoke.Load()) + w.away; now < at { // it has spoken meanwhile, and may not have seen silent
		s.silent.Store(false)
		return at
	}
	s.setAwayLocked(awaySilent, 0)
	return 0
}
