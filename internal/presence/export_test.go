package presence

// Held is how much a Presence knows.
func (p *Presence) Held() (users, rooms, members, deadlines int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.users), len(p.rooms), len(p.members), len(p.deadlines)
}
