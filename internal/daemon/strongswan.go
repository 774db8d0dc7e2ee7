package daemon

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/strongswan/govici/vici"

	"vpnprobe/evidence"
)

const (
	// initiateTimeout bounds a negotiation: charon's first retransmissions
	// come after 4, 11 and 24 seconds.
	initiateTimeout = 20 * time.Second
	rekeyTimeout    = 6 * time.Second
	cleanupTimeout  = 4 * time.Second
	resolveTimeout  = 2 * time.Second

	// minTimeout is the shortest that makes sense to ask charon for: 0 would
	// be without an end.
	minTimeout = 100 * time.Millisecond
)

// strongSwan is a charon that is asked by vici.
type strongSwan struct {
	socket string
}

func (*strongSwan) Name() string { return string(evidence.ByStrongSwan) }

// ikeSA is what list-sas tells of an IKE SA.
type ikeSA struct {
	conn, id  string
	version   string
	state     string
	remote    netip.Addr
	initiator bool
	children  []childSA
	creating  bool // a child SA is being negotiated
}

type childSA struct{ name, id, state string }

// up reports whether an IKE SA is authenticated and not on its way out.
func (s ikeSA) up() bool {
	return slices.Contains([]string{"ESTABLISHED", "REKEYING", "REKEYED", "PASSIVE"}, s.state)
}

// up reports whether a child SA can carry traffic.
func (c childSA) up() bool {
	return slices.Contains([]string{"INSTALLED", "UPDATING", "REKEYING", "REKEYED"}, c.state)
}

// connection is a configuration of charon's, and the first of its children.
type connection struct {
	name, child   string
	local, remote []string // the child's traffic selectors
}

func (d *strongSwan) Status(ctx context.Context, peer netip.Addr) (Status, error) {
	sas, err := d.sas(ctx)
	if err != nil {
		return Status{}, err
	}
	conn, err := d.connection(ctx, peer)
	if err != nil {
		return Status{}, err
	}
	s := statusOf(sas, peer)
	s.Configured = conn != nil
	return s, nil
}

func statusOf(sas []ikeSA, peer netip.Addr) Status {
	var s Status
	for _, sa := range sas {
		if sa.remote != plain(peer) {
			continue
		}
		s.Established = s.Established || sa.up()
		s.Negotiating = s.Negotiating || sa.state == "CONNECTING" || sa.creating
		for _, c := range sa.children {
			s.Installed = s.Installed || c.up()
		}
	}
	return s
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// sas lists the IKE SAs, including those being negotiated.
func (d *strongSwan) sas(ctx context.Context) ([]ikeSA, error) {
	items, err := list(ctx, d.socket, "list-sas", "list-sa")
	if err != nil {
		return nil, err
	}
	var sas []ikeSA
	for _, item := range items {
		for _, name := range item.Keys() {
			sas = append(sas, ikeSAOf(name, section(item, name)))
		}
	}
	return sas, nil
}

func ikeSAOf(name string, m *vici.Message) ikeSA {
	sa := ikeSA{conn: name, id: text(m, "uniqueid"), version: text(m, "version"), state: text(m, "state"), initiator: text(m, "initiator") == "yes"}
	if a, err := netip.ParseAddr(text(m, "remote-host")); err == nil {
		sa.remote = plain(a)
	}
	for _, task := range texts(m, "tasks-active") {
		sa.creating = sa.creating || task == "CHILD_CREATE" || task == "QUICK_MODE"
	}
	children := section(m, "child-sas")
	for _, key := range children.Keys() {
		c := section(children, key)
		child := childSA{name: text(c, "name"), id: text(c, "uniqueid"), state: text(c, "state")}
		sa.children = append(sa.children, child)
		sa.creating = sa.creating || child.state == "CREATED" || child.state == "INSTALLING"
	}
	return sa
}

// connection returns the loaded connection to the peer, nil when there is
// none. One that names the address is preferred to one that names a network.
func (d *strongSwan) connection(ctx context.Context, peer netip.Addr) (*connection, error) {
	items, err := list(ctx, d.socket, "list-conns", "list-conn")
	if err != nil {
		return nil, err
	}
	var best *connection
	bestMatch := noMatch
	named := make(map[string]*connection) // by DNS name
	for _, item := range items {
		for _, name := range item.Keys() {
			m := section(item, name)
			for _, remote := range texts(m, "remote_addrs") {
				switch match := matchAddress(remote, plain(peer)); {
				case match == matchName && named[remote] == nil:
					named[remote] = connectionOf(name, m)
				case match != matchName && match > bestMatch:
					best, bestMatch = connectionOf(name, m), match
				}
			}
		}
	}
	if best == nil {
		best = resolve(ctx, named, plain(peer))
	}
	return best, nil
}

// resolve returns the connection to a name that has the peer's address.
func resolve(ctx context.Context, named map[string]*connection, peer netip.Addr) *connection {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	for _, name := range slices.Sorted(maps.Keys(named)) {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		if err == nil && slices.ContainsFunc(found, func(a netip.Addr) bool { return plain(a) == peer }) {
			return named[name]
		}
	}
	return nil
}

func connectionOf(name string, m *vici.Message) *connection {
	c := &connection{name: name}
	children := section(m, "children")
	if keys := children.Keys(); len(keys) > 0 {
		child := section(children, keys[0])
		c.child, c.local, c.remote = keys[0], texts(child, "local-ts"), texts(child, "remote-ts")
	}
	return c
}

// How well a remote address of a connection fits a peer.
const (
	noMatch = iota
	matchNetwork
	matchExact
	matchName // not an address: to be resolved
)

// matchAddress compares a peer with an address, a network or a range. "%any"
// stands for clients, of whom nothing is known before they come.
func matchAddress(remote string, peer netip.Addr) int {
	if a, err := netip.ParseAddr(remote); err == nil {
		return matchIf(plain(a) == peer, matchExact)
	}
	if p, err := netip.ParsePrefix(remote); err == nil {
		return matchIf(p.Bits() > 0 && p.Contains(peer), matchNetwork)
	}
	if first, last, ok := strings.Cut(remote, "-"); ok {
		from, err1 := netip.ParseAddr(first)
		to, err2 := netip.ParseAddr(last)
		if err1 == nil && err2 == nil {
			return matchIf(from.Compare(peer) <= 0 && peer.Compare(to) <= 0, matchNetwork)
		}
	}
	return matchIf(remote != "" && !strings.HasPrefix(remote, "%"), matchName)
}

func matchIf(fits bool, match int) int {
	if fits {
		return match
	}
	return noMatch
}

func (d *strongSwan) Initiate(ctx context.Context, peer netip.Addr, rekey bool) (evidence.IKEAuth, error) {
	began := time.Now()
	conn, err := d.connection(ctx, peer)
	if err != nil {
		return evidence.IKEAuth{}, err
	}
	before, err := d.sas(ctx)
	if err != nil {
		return evidence.IKEAuth{}, err
	}
	s := statusOf(before, peer)
	s.Configured = conn != nil && conn.child != ""
	if why := busy("strongSwan", s, peer); why != "" {
		return evidence.IKEAuth{By: evidence.ByStrongSwan, Skipped: why}, nil
	}
	if !s.Configured {
		return unable(evidence.ByStrongSwan, noConnection("strongSwan", peer))
	}

	log, err := d.initiate(ctx, conn)
	if log == nil {
		return evidence.IKEAuth{}, err
	}
	log.auth.Time = evidence.Some(began)
	ours := log.begun(before)
	if log.auth.Stage != evidence.StageComplete {
		// Even when the caller's time is up.
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		failed := d.cleanUp(cleaning, log, func(sa ikeSA) bool {
			if log.lines == 0 {
				// Charon was asked and has not been heard: what is new and just
				// begins is ours.
				return sa.conn == conn.name && sa.initiator && !sa.up() && !slices.ContainsFunc(before, func(old ikeSA) bool { return old.id == sa.id })
			}
			return slices.Contains(ours, sa.id)
		})
		if log.lines == 0 && err != nil {
			return evidence.IKEAuth{}, err
		}
		if failed != nil {
			log.auth.Said = said(log.auth.Said, failed.Error())
		}
		return log.auth, nil
	}
	log.auth.Narrowed = narrowed(log.auth.Selectors, conn.local, conn.remote)
	switch {
	case log.keyExchange:
		// It was set up in an exchange of its own, with the PFS group.
		log.auth.Rekey = evidence.Yes
	case rekey && len(ours) > 0:
		d.rekey(ctx, log, conn, ours)
	}
	return log.auth, nil
}

// busy says which SA with the peer keeps a daemon from being asked to set a
// tunnel up. An IKE SA alone does not where the daemon has a connection: the
// child SA can be set up in it.
func busy(who string, s Status, peer netip.Addr) string {
	switch {
	case s.Installed:
		return fmt.Sprintf("a child SA with %s is up in %s, which shows that both ends agree", peer, who)
	case s.Negotiating:
		return fmt.Sprintf("%s is negotiating with %s itself", who, peer)
	case s.Established && !s.Configured:
		return fmt.Sprintf("an IKE SA with %s is up in %s, which has no connection to it that it could set up", peer, who)
	}
	return ""
}

func noConnection(who string, peer netip.Addr) string {
	return fmt.Sprintf("%s has no connection to %s that it could set up", who, peer)
}

// unable is the result of Initiate for a daemon that cannot set a tunnel up.
func unable(by evidence.AuthBy, why string) (evidence.IKEAuth, error) {
	return evidence.IKEAuth{By: by, Skipped: why}, fmt.Errorf("%w: %s", ErrUnable, why)
}

// begun returns the ids of the IKE SAs that charon began for us: it said so,
// and they were not there before.
func (l *charonLog) begun(before []ikeSA) (ids []string) {
	for _, id := range l.ids {
		old := slices.ContainsFunc(before, func(sa ikeSA) bool { return sa.id == id })
		if !old && number(id) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// initiate has charon set the child of a connection up and reads what it
// says. The log is nil when charon could not be asked; with an error, charon
// did not answer in the end.
func (d *strongSwan) initiate(ctx context.Context, conn *connection) (*charonLog, error) {
	ctx, cancel := context.WithTimeout(ctx, initiateTimeout)
	defer cancel()
	s, err := openSession(ctx, d.socket, "control-log")
	if err != nil {
		return nil, err
	}
	defer s.close()
	// Charon answers shortly before our own time is up.
	deadline, _ := ctx.Deadline()
	timeout := max(time.Until(deadline)-500*time.Millisecond, minTimeout)
	in := vici.NewMessage()
	for _, set := range []struct {
		key   string
		value any
	}{
		{"child", conn.child},
		{"ike", conn.name},
		{"timeout", timeout.Milliseconds()},
		{"loglevel", 1},
	} {
		if err := in.Set(set.key, set.value); err != nil {
			return nil, err
		}
	}
	refused, err := s.call(ctx, "initiate", in)
	log := newCharonLog()
	for _, m := range s.received() {
		log.add(text(m, "group"), text(m, "msg"))
	}
	switch {
	case err != nil:
		return log, ask(ctx, d.socket, err)
	case refused != "":
		log.auth.Said = said(log.auth.Said, "initiate: "+refused)
	default:
		log.auth.Stage, log.auth.Notify = evidence.StageComplete, ""
	}
	return log, nil
}

// cleanUp ends those of our IKE SAs that are left without a child SA.
func (d *strongSwan) cleanUp(ctx context.Context, log *charonLog, ours func(ikeSA) bool) error {
	sas, err := d.sas(ctx)
	if err != nil {
		return err
	}
	for _, sa := range sas {
		if !ours(sa) || slices.ContainsFunc(sa.children, childSA.up) {
			continue
		}
		deleted, err := d.terminate(ctx, sa.id)
		if err != nil {
			return err
		}
		if sa.up() && sa.version == "2" { // IKEv1 confirms no deletion
			log.auth.Deleted = evidence.FactOf(deleted)
		}
	}
	return nil
}

// terminate ends an IKE SA, without the peer if that does not answer, and
// reports whether it did.
func (d *strongSwan) terminate(ctx context.Context, id string) (deleted bool, err error) {
	s, err := openSession(ctx, d.socket, "control-log")
	if err != nil {
		return false, err
	}
	defer s.close()
	in, err := vici.MarshalMessage(map[string]string{"ike-id": id, "force": "yes", "timeout": "2000", "loglevel": "1"})
	if err != nil {
		return false, err
	}
	if _, err := s.call(ctx, "terminate", in); err != nil {
		return false, ask(ctx, d.socket, err)
	}
	for _, m := range s.received() {
		deleted = deleted || strings.HasPrefix(text(m, "msg"), "IKE_SA deleted")
	}
	return deleted, nil
}

// rekey has charon rekey the child SA that it set up for us, and notes
// whether the peer took it. What cannot be learnt stays unknown.
func (d *strongSwan) rekey(ctx context.Context, log *charonLog, conn *connection, ours []string) {
	sas, err := d.sas(ctx)
	if err != nil {
		return
	}
	var sa *ikeSA
	for i := range sas {
		if slices.Contains(ours, sas[i].id) && sas[i].up() {
			sa = &sas[i]
		}
	}
	if sa == nil || sa.version != "2" {
		return // in IKEv1 the first child SA has had the PFS group already
	}
	child := slices.IndexFunc(sa.children, func(c childSA) bool { return c.name == conn.child && c.state == "INSTALLED" })
	if child < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rekeyTimeout)
	defer cancel()
	s, err := openSession(ctx, d.socket, "log")
	if err != nil {
		return
	}
	defer s.close()
	in, err := vici.MarshalMessage(map[string]string{"child-id": sa.children[child].id})
	if err != nil {
		return
	}
	if refused, err := s.call(ctx, "rekey", in); err != nil || refused != "" {
		return
	}
	log.await(ctx, s.events, sa.id)
}

// await reads the daemon's log until it tells how the rekeying of a child of
// the IKE SA went.
func (l *charonLog) await(ctx context.Context, events <-chan vici.Event, id string) {
	first := l.auth // what the rekeying changes is told by Rekey, Notify and PFSGroup only
	r := &charonLog{auth: evidence.IKEAuth{Stage: evidence.StageChild, Said: first.Said}}
	defer func() {
		l.auth.Said, l.auth.PFSGroup = r.auth.Said, r.auth.PFSGroup
		if l.auth.Rekey == evidence.No {
			l.auth.Notify = r.auth.Notify
		}
	}()
	for lines := 0; lines < maxEvents; lines++ {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			if text(e.Message, "ikesa-uniqueid") != id {
				continue
			}
			r.add(text(e.Message, "group"), text(e.Message, "msg"))
		}
		switch {
		case r.auth.Stage == evidence.StageComplete:
			l.auth.Rekey = evidence.Yes
			return
		case r.rekeyFailed && r.auth.Notify == "":
			return // for a reason of its own
		case r.rekeyFailed:
			l.auth.Rekey = evidence.No
			return
		}
	}
}
