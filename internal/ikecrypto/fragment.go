package ikecrypto

import (
	"errors"
	"fmt"

	"vpnprobe/internal/wire/ike"
)

// ErrIncomplete says that fragments of a message are still missing.
var ErrIncomplete = errors.New("message is incomplete")

// OpenFragments opens a message that came in fragments (RFC 7383), given all
// that has come under one message ID of one end, in any order. The error is
// [ErrIncomplete] while fragments are missing. What was not protected with
// these keys is left out, so that nobody else can spoil the message; if
// nothing remains, the error says what the last one lacked.
func (k *Keys) OpenFragments(list [][]byte) (ike.Message, error) {
	var set fragmentSet
	var lastErr error = ErrIncomplete
	for _, m := range list {
		msg, content, err := k.open(m, ike.PayloadFragment, fragmentHeaderLen)
		if err == nil {
			err = set.add(msg, content)
		}
		if err != nil {
			lastErr = err
		}
	}
	if set.total == 0 {
		return ike.Message{}, fmt.Errorf("open fragments: %w", lastErr)
	}
	if len(set.content) < set.total {
		return ike.Message{}, fmt.Errorf("open fragments: %d of %d: %w", len(set.content), set.total, ErrIncomplete)
	}
	var whole []byte
	for n := 1; n <= set.total; n++ {
		whole = append(whole, set.content[n]...)
	}
	return replaceLast(set.first, whole)
}

// fragmentSet is the authentic fragments of one message.
type fragmentSet struct {
	total   int
	content map[int][]byte // by number, 1 to total
	first   ike.Message    // the fragment that says what the content starts with
	id      ike.Header
}

var errOtherFragment = errors.New("fragment of another message")

// add adds a fragment, the first of each number. When a sender has cut the
// message anew, into smaller pieces, those of the larger total count (RFC
// 7383 section 2.6).
func (s *fragmentSet) add(msg ike.Message, content []byte) error {
	f, err := ike.ParseFragment(msg.Payloads[len(msg.Payloads)-1].Body)
	if err != nil {
		return err
	}
	number, total := int(f.Number), int(f.Total)
	id := ike.Header{Exchange: msg.Exchange, Flags: msg.Flags, MessageID: msg.MessageID}
	if s.total != 0 && id != s.id {
		return errOtherFragment
	}
	if total > s.total {
		*s = fragmentSet{total: total, content: map[int][]byte{}, id: id}
	}
	if _, have := s.content[number]; have || total < s.total {
		return nil
	}
	s.content[number] = content
	if number == 1 {
		s.first = msg
	}
	return nil
}
