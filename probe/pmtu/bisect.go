package pmtu

// bisection searches with few packets, sent singly: it halves the ladder. So
// that a loss has neighbours that were answered, every size that is to have
// failed is sent between small ones in the end.
type bisection struct{ *search }

// next returns the sizes of the next round.
func (b *bisection) next() []int {
	largest := b.largest()
	switch {
	case len(b.list) == 0 && !b.local[b.top]:
		return []int{b.top}
	case largest >= b.top:
		return nil
	}
	if sizes := b.claim(); len(sizes) > 0 {
		return sizes
	}
	if largest == 0 {
		if b.sent(b.small) >= minTries {
			return nil
		}
		return []int{b.small}
	}
	high, known := b.ceiling(largest)
	var rungs []int
	for _, n := range ladder {
		if n > largest && n < high && n >= b.minMTU && n > b.small {
			rungs = append(rungs, n)
		}
	}
	switch {
	case len(rungs) > 0 && high > largest+1:
		return []int{rungs[len(rungs)/2]}
	case known && (b.told() || b.certain()):
		return nil
	}
	return []int{high, b.small}
}
