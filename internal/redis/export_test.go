package redis

// SlotOf is the slot of a key or channel.
func SlotOf(key string) uint16 { return slotOf(key) }

// Restored is how many messages the node has put back.
func (b *Broker) Restored() int64 { return b.restored.Load() }
