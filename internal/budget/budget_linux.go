package budget

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The kinds of request that have a budget.
const (
	HalfOpen      = "half-open"     // may leave a half-open SA at the peer
	Authenticated = "authenticated" // sets an SA up
)

// How long a reservation of each kind holds. strongSwan forgets a half-open SA
// after 30 s, and ignores an address that has five (charon.block_threshold).
const (
	HoldHalfOpen      = time.Minute
	HoldAuthenticated = 10 * time.Minute
)

// MaxHold is the longest hold. Older records are deleted.
const MaxHold = 24 * time.Hour

// Key names what has a budget of its own. The addresses may be invalid where
// they are not known; the kind is of lower case letters and hyphens.
type Key struct {
	Source, Peer netip.Addr
	Kind         string
}

func (k Key) String() string {
	return fmt.Sprintf("%s requests from %s to %s", k.Kind, address(k.Source), address(k.Peer))
}

// file returns the name of the key's file. A zone may hold any character.
func (k Key) file(prefix string) string {
	return prefix + "_" + k.Kind + "_" + url.PathEscape(address(k.Source)) + "_" + url.PathEscape(address(k.Peer)) + ".json"
}

func (k Key) check() error {
	if k.Kind == "" {
		return errors.New("a budget needs a kind")
	}
	for _, c := range k.Kind {
		if (c < 'a' || c > 'z') && c != '-' {
			return fmt.Errorf("budget of kind %q: want lower case letters and hyphens", k.Kind)
		}
	}
	return nil
}

// address returns the one notation of an address: a peer is the same peer
// when a caller writes it as an IPv4-mapped IPv6 address.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return "any"
	}
	return a.Unmap().String()
}

// SpentError says that the budget does not allow a request yet.
type SpentError struct {
	Key   Key
	Until time.Time // the earliest time to ask again
	// Lost is why the true time is not known, and the budget counts as spent
	// just now: its record was damaged, or the clock was set back before this
	// boot.
	Lost string
}

func (e *SpentError) Error() string {
	s := fmt.Sprintf("the budget of %s is spent until %s", e.Key, e.Until.Format(time.RFC3339))
	if e.Lost != "" {
		s += " (" + e.Lost + ")"
	}
	return s
}

// Budget is a directory of budgets. Its methods may be called concurrently,
// and by several processes.
type Budget struct {
	dir   store
	clock func() moment // which tests replace
}

// Open returns the budgets kept in the first of dirs that this user may use: it
// exists or can be created, and is a directory of this user's that nobody else
// can write to. The superuser uses the directory of another user as that user
// would, so that both share one budget.
//
// A directory that may be used and cannot be at the moment, for it is locked or
// its disk is full, is an error: what was spent there would count as unspent in
// the next one.
func Open(dirs ...string) (*Budget, error) {
	if len(dirs) == 0 {
		return nil, errors.New("open the state directory: none is configured")
	}
	var faults []error
	for _, dir := range dirs {
		s, err := openStore(dir)
		if err == nil {
			return &Budget{dir: s, clock: clock()}, nil
		}
		if !mayNotUse(err) {
			faults = []error{err}
			break
		}
		faults = append(faults, err)
	}
	return nil, oneLine("open a state directory, to keep the budget of requests in", faults)
}

// mayNotUse reports whether a directory could not be opened for a reason that
// stays: whoever opens it later meets the same.
func mayNotUse(err error) bool {
	return slices.ContainsFunc([]error{errNotOurs, fs.ErrNotExist, fs.ErrPermission, unix.ENOTDIR, unix.EROFS}, func(reason error) bool {
		return errors.Is(err, reason)
	})
}

// oneLine joins errors in one line, as an operator reads them.
func oneLine(doing string, faults []error) error {
	err := fmt.Errorf("%s: %w", doing, faults[0])
	for _, fault := range faults[1:] {
		err = fmt.Errorf("%w; %w", err, fault)
	}
	return err
}

// Dir returns the directory in use.
func (b *Budget) Dir() string { return b.dir.name() }

// Close releases the directory. Reservations stay.
func (b *Budget) Close() error { return b.dir.close() }

// record is the content of a key's file.
type record struct {
	moment
	ID string `json:"id"` // of the reservation, so that only its owner releases it
}

// Reservation is a permission to send one request.
type Reservation struct {
	budget *Budget
	key    Key
	id     string
	before *record // nil when there was none
}

// Reserve takes the budget of k for hold, which is at most MaxHold. It fails
// with a *SpentError while another reservation, of this process or any, is
// younger than hold, whatever happens to the clock on the wall within one boot.
// The reservation is on disk before Reserve returns.
func (b *Budget) Reserve(k Key, hold time.Duration) (*Reservation, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	if hold <= 0 || hold > MaxHold {
		return nil, fmt.Errorf("reserve %s: hold of %v: want more than none and at most %v", k, hold, MaxHold)
	}
	unlock, err := b.dir.lock()
	if err != nil {
		return nil, fmt.Errorf("reserve %s: %w", k, err)
	}
	defer unlock()

	now := b.clock()
	age := MaxHold
	last, lost, err := b.read(k.file("budget"))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reserve %s: %w", k, err)
	case last != nil:
		if age = now.since(last.moment); age < 0 {
			lost = "the clock was set back"
		}
	}
	if lost != "" {
		// From now on the time is known again, and passes.
		if err := b.write(k, &record{moment: now, ID: rand.Text()}); err != nil {
			return nil, fmt.Errorf("reserve %s: %s, and it cannot be mended: %w", k, lost, err)
		}
		return nil, &SpentError{Key: k, Until: now.Time.Add(hold), Lost: lost}
	}
	if age < hold {
		return nil, &SpentError{Key: k, Until: now.Time.Add(hold - age)}
	}
	r := &Reservation{budget: b, key: k, id: rand.Text(), before: last}
	if err := b.write(k, &record{moment: now, ID: r.id}); err != nil {
		return nil, fmt.Errorf("reserve %s: %w", k, err)
	}
	// Housekeeping, which the next reservation repeats.
	_ = b.dir.sweep(now.Time.Add(-MaxHold), func(name string) bool {
		// The file's time is the wall's. What does not read as a record of this
		// boot has none better.
		last, lost, err := b.read(name)
		return err == nil && lost == "" && last != nil && now.since(last.moment) < MaxHold
	})
	return r, nil
}

// Release gives the budget back, because the answer proved that the request
// left nothing at the peer. It does nothing after someone else's reservation,
// nor when the budget cannot be written: the reservation then ends by itself.
func (r *Reservation) Release() {
	if r == nil {
		return
	}
	b := r.budget
	unlock, err := b.dir.lock()
	if err != nil {
		return
	}
	defer unlock()
	if last, lost, err := b.read(r.key.file("budget")); err != nil || lost != "" || last == nil || last.ID != r.id {
		return
	}
	_ = b.write(r.key, r.before)
}

// read returns the record in a file, nil when there is none. lost says why a
// record is there and cannot be understood.
func (b *Budget) read(name string) (last *record, lost string, err error) {
	data, err := b.dir.read(name, maxRecord)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", nil
	case errors.Is(err, errTooLarge):
		return nil, "its record was damaged: too large", nil
	case err != nil:
		return nil, "", err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Sprintf("its record was damaged: %v", err), nil
	}
	if r.Time.IsZero() || r.ID == "" {
		return nil, "its record was damaged: no time", nil
	}
	return &r, "", nil
}

// maxRecord bounds the size of a record's file, in bytes.
const maxRecord = 4 << 10

// write replaces the record of k, or with nil deletes it.
func (b *Budget) write(k Key, r *record) error {
	if r == nil {
		return b.dir.remove(k.file("budget"))
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return b.dir.replace(k.file("budget"), data)
}
