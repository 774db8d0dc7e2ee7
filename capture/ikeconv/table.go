package ikeconv

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"vpnprobe/internal/wire/ike"
)

// sa is an IKE SA, or what claims to be one.
type sa struct {
	major      int // version
	spii, spir ike.SPI
	initiator  side
	// bound is false as long as only IKE_SA_INIT messages passed: anyone who
	// saw the request can have sent the answer that named spir.
	bound     bool
	heard     [2]bool // of which sides there were messages
	protected [2]bool // of which sides there were encrypted ones
	used      uint64  // serial of the last message

	suite    suite
	smallest int // INFORMATIONAL message so far, in bytes; 0 is none
	began    *negotiation

	requests [window]request
	next     int // slot of requests to take

	authenticated time.Time // when IKE_AUTH was answered last
	settled       time.Time // when IKE_AUTH or CREATE_CHILD_SA was answered last
	// refused is since when a CREATE_CHILD_SA of each side stands refused,
	// unless it is repeated at once with what was asked for.
	refused [2]time.Time
	quiet   quiet
	v1      stateV1
}

// quiet is a small INFORMATIONAL exchange after which nothing was said: it may
// have deleted the SA.
type quiet struct {
	at   time.Time // zero is none
	from side
}

const (
	// maxKnown and maxStrangers bound the table. Two gateways have one IKE SA,
	// or two for as long as it takes to replace one.
	maxKnown     = 8
	maxStrangers = 4
)

// table holds the IKE SAs in use. Those that this side never spoke on are kept
// apart, so that forged messages push out only their like.
type table struct {
	known, strangers []*sa
}

// all returns all SAs.
func (t *table) all() iter.Seq[*sa] {
	return func(yield func(*sa) bool) {
		for _, list := range [2][]*sa{t.known, t.strangers} {
			for _, s := range list {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// find returns the SA of a message on an established IKE SA, by both SPIs, or
// nil.
func (t *table) find(major int, spii, spir ike.SPI) *sa {
	for _, list := range [2][]*sa{t.known, t.strangers} {
		for _, s := range list {
			if s.spii == spii && s.spir == spir && s.major == major {
				return s
			}
		}
	}
	return nil
}

// findInitiated returns the SA that a side began with an SPI, or nil.
func (t *table) findInitiated(major int, spii ike.SPI, by side) *sa {
	for _, list := range [2][]*sa{t.known, t.strangers} {
		for _, s := range list {
			if s.spii == spii && s.initiator == by && s.major == major {
				return s
			}
		}
	}
	return nil
}

// insert adds an SA of which a message of a side was heard.
func (t *table) insert(s *sa, from side) {
	if s.heard[from] = true; from == ours {
		t.known = makeRoom(t.known, maxKnown)
		t.known = append(t.known, s)
	} else {
		t.strangers = makeRoom(t.strangers, maxStrangers)
		t.strangers = append(t.strangers, s)
	}
}

// hear notes a message of a side on an SA of the table. It reports whether this
// side spoke on the SA for the first time.
func (t *table) hear(s *sa, from side, serial uint64) bool {
	s.used = serial
	first := from == ours && !s.heard[ours]
	if s.heard[from] = true; first {
		i := slices.Index(t.strangers, s)
		t.strangers = slices.Delete(t.strangers, i, i+1)
		t.known = append(makeRoom(t.known, maxKnown), s)
	}
	return first
}

// bothWays is the rank of an SA with encrypted messages both ways.
const bothWays = 2

// rank orders SAs by how hard they are to forge.
func (s *sa) rank() int {
	switch {
	case s.protected[ours] && s.protected[theirs]:
		return bothWays
	case s.heard[ours] && s.heard[theirs]:
		return 1
	}
	return 0
}

// makeRoom takes one SA out of a full list: of the lowest rank that there is,
// the one that was not used for longest.
func makeRoom(list []*sa, size int) []*sa {
	if len(list) < size {
		return list
	}
	worst := slices.MinFunc(list, func(a, b *sa) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.used, b.used))
	})
	i := slices.Index(list, worst)
	return slices.Delete(list, i, i+1)
}
