package esp

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A table counts the same whether packets are added by the places of their
// flows, as long as these hold, or by their keys. It is small, so that flows
// have to leave.
func TestPlaces(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		byKey, byPlace := newTable(8, 64), newTable(8, 64)
		byPlace.flows.seed = byKey.flows.seed
		places := map[Key]Place{}
		at := time.Unix(1700000000, 0)
		held := 0
		for seq := range uint32(2000) {
			at = at.Add(time.Duration(r.IntN(3)) * time.Millisecond)
			key := Key{SPI: uint32(r.IntN(3)), Protocol: ESP}
			if r.IntN(50) == 0 {
				key.SPI = uint32(r.IntN(40))
			}
			byKey.Add(key, seq, 100, Whole, at)
			if p, ok := places[key]; ok && byPlace.AddAt(p, seq, 100, at, at.UnixNano()) {
				held++
				continue
			}
			byPlace.Add(key, seq, 100, Whole, at)
			delete(places, key)
			if p, ok := byPlace.Find(key); ok {
				places[key] = p
			}
		}
		if _, zero := places[Key{Protocol: ESP}]; zero {
			t.Error("SPI 0 has a place")
		}
		now := at.Add(time.Hour)
		if diff := cmp.Diff(maps.Collect(byKey.Flows(now)), maps.Collect(byPlace.Flows(now))); diff != "" {
			t.Fatalf("seed %d: by key (-), by place (+):\n%s", seed, diff)
		}
		if byKey.Forgotten() != byPlace.Forgotten() || held < 500 {
			t.Errorf("seed %d: %d forgotten, %d by place; %d places held", seed, byKey.Forgotten(), byPlace.Forgotten(), held)
		}
	}
}
