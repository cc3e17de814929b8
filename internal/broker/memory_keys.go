package broker

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// keyHash stands for a caller and its key, whose length would otherwise decide what a million of them cost.
type keyHash [16]byte

func hashKey(caller, key string) keyHash {
	var buf [256]byte
	b := binary.AppendUvarint(buf[:0], uint64(len(caller))) // so that the two cannot be cut elsewhere
	b = append(append(b, caller...), key...)
	sum := sha256.Sum256(b)
	return keyHash(sum[:16])
}

// memoryKeys remembers the receipts of a room's publications that bore a key. All live equally long, so they go in the
// order they came. Neither part holds pointers: the collector does not look into them.
type memoryKeys struct {
	receipts map[keyHash]Receipt
	order    ring[keyDue]
}

type keyDue struct {
	key keyHash
	due time.Duration // since the broker's start
}

// add remembers a receipt; the key must not be remembered already.
func (k *memoryKeys) add(key keyHash, receipt Receipt, due time.Duration) {
	if k.receipts == nil {
		k.receipts = make(map[keyHash]Receipt)
	}
	k.receipts[key] = receipt
	k.order.push(keyDue{key, due})
}

// expire forgets what is due, and returns how many that were.
func (k *memoryKeys) expire(now time.Duration) (gone int64) {
	for k.order.n > 0 && k.order.at(0).due <= now {
		delete(k.receipts, k.order.pop().key)
		gone++
	}
	if k.order.n == 0 {
		k.receipts = nil // a map does not shrink
	}
	return gone
}
