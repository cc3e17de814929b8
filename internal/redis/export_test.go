package redis

// SlotOf is the slot of a key or channel.
func SlotOf(key string) uint16 { return slotOf(key) }
