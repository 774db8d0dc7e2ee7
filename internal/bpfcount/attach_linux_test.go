package bpfcount

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/wire/esp"
)

// veth makes the pair of netnstest and returns the index of wan. The kernel
// sends as little as possible on it of its own: nothing with IPv6.
func veth(t testing.TB) (wan int) {
	t.Helper()
	netnstest.Sysctl(t, "ipv6/conf/default/disable_ipv6", "1")
	netnstest.Veth(t)
	return index(t, "wan")
}

func index(t testing.TB, name string) int {
	t.Helper()
	dev, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return dev.Index
}

// tc returns what tc(8) shows of an interface.
func tc(t testing.TB, name string) string {
	t.Helper()
	return run(t, "tc qdisc show dev "+name) + run(t, "tc filter show dev "+name+" ingress") + run(t, "tc filter show dev "+name+" egress") +
		fmt.Sprint(strings.Contains(run(t, "ip link show dev "+name), "xdp"))
}

// hooks are the ways to attach.
var hooks = []struct {
	name  string
	noTCX bool
	xdp   bool
}{
	{HookTCX, false, false},
	{HookClsact, true, false},
	{HookXDPTCX, false, true},
	{HookXDPClsact, true, true},
}

// withoutTCX reports whether a hook is what becomes of another on a kernel
// before 6.6.
func withoutTCX(want, got string) bool {
	return got == strings.Replace(want, HookTCX, HookClsact, 1) && want != got
}

func needHook(t *testing.T, want, got string, err error) {
	t.Helper()
	if err == nil && withoutTCX(want, got) {
		t.Skip("needs tcx, of Linux 6.6")
	}
	if err != nil || got != want {
		t.Fatalf("attached by %q: %v", got, err)
	}
}

// TestAttach counts real packets by every hook, and leaves no trace.
func TestAttach(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	wan := veth(t)
	fromISP, fromWAN := netnstest.Sender(t, "isp"), netnstest.Sender(t, "wan")
	for _, h := range hooks {
		t.Run(h.name, func(t *testing.T) {
			before := tc(t, "wan")
			c := openTest(t, bothPeers)
			c.noTCX = h.noTCX
			hook, err := c.Attach(wan, Options{XDP: h.xdp})
			needHook(t, h.name, hook, err)
			if _, err := c.Attach(wan, Options{}); err == nil {
				t.Error("attached twice")
			}
			want := map[esp.Key]esp.Sample{}
			model := map[esp.Key]*esp.Cell{}
			send := func(out bool, p ipPacket, k esp.Key, number uint32, part esp.Fragment, tags ...uint16) {
				p.src, p.dst = peer4, host4
				if k.Src.Is6() {
					p.src, p.dst = peer6, host6
				}
				put := fromISP
				if out {
					p.src, p.dst = p.dst, p.src
					put = fromWAN
				}
				k.Src, k.Dst, k.Outgoing = p.src, p.dst, out
				ip := p.bytes()
				if model[k] == nil {
					model[k] = &esp.Cell{}
				}
				model[k].Add(number, len(ip), part, time.Time{})
				put(ether(ip, tags...))
			}
			k4, k6 := esp.Key{Src: peer4, SPI: 77, Protocol: esp.ESP}, esp.Key{Src: peer6, SPI: 77, Protocol: esp.ESP}
			natt, ah, rest := k4, k4, k4
			natt.Encap, ah.Protocol, rest.SPI = true, esp.AH, 0
			onCPU(t, 0, func() {
				for _, out := range []bool{false, true} {
					for n := uint32(0xfffffff0); n != 40; n++ {
						if n%7 == 0 {
							continue
						}
						size := int(n % 64)
						send(out, ipPacket{proto: 50, payload: espData(77, n, size)}, k4, n, esp.Whole)
						send(out, ipPacket{proto: 50, payload: espData(77, n, size)}, k6, n, esp.Whole)
						send(out, ipPacket{proto: 17, payload: udpData(4500, 4500, espData(77, n, size))}, natt, n, esp.Whole)
						send(out, ipPacket{proto: 51, payload: ahData(77, n, size)}, ah, n, esp.Whole, 5)
						send(out, ipPacket{proto: 50, payload: espData(77, n-2, size)}, k4, n-2, esp.Whole, 5, 6)
					}
					send(out, ipPacket{proto: 50, more: true, payload: espData(77, 50, 64)}, k4, 50, esp.FirstFragment)
					send(out, ipPacket{proto: 50, more: true, offset: 9, payload: make([]byte, 64)}, rest, 0, esp.MiddleFragment)
					send(out, ipPacket{proto: 50, offset: 17, payload: make([]byte, 1)}, rest, 0, esp.LastFragment)
				}
			})
			for k, cell := range model {
				want[k] = cell.Sample
			}
			var got map[esp.Key]esp.Sample
			netnstest.Eventually(t, "packets arrive", func() bool {
				got = map[esp.Key]esp.Sample{}
				if err := c.Samples(func(ifindex int, k esp.Key, s esp.Sample) bool {
					if ifindex != wan {
						t.Errorf("on interface %d", ifindex)
					}
					got[k] = s
					return true
				}); err != nil {
					t.Fatal(err)
				}
				return got[esp.Key{Src: peer4, Dst: host4, Protocol: esp.ESP}].Fragments[2] == 1
			})
			if diff := cmp.Diff(want, got, ignoreTime); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}

			ike := ether(ipPacket{src: peer4, dst: host4, proto: 17, payload: udpData(500, 500, ikeData(1400, false))}.bytes())
			leak := ether(ipPacket{src: host4, dst: inner4, proto: 6, payload: make([]byte, 40)}.bytes())
			fromISP(ike)
			fromWAN(leak)
			var frames []Frame
			netnstest.Eventually(t, "frames arrive", func() bool {
				frames = append(frames, drain(t, c)...)
				return len(frames) == 2
			})
			if frames[0].Leak {
				frames[0], frames[1] = frames[1], frames[0]
			}
			if diff := cmp.Diff([]Frame{
				{Ifindex: wan, WireLen: len(ike) - 14, Data: ike[14:]},
				{Ifindex: wan, Outgoing: true, Leak: true, WireLen: len(leak) - 14, Data: leak[14:]},
			}, frames); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
			if err := c.Detach(wan); err != nil {
				t.Fatal(err)
			}
			if err := c.Detach(wan); err != nil {
				t.Errorf("detached twice: %v", err)
			}
			if after := tc(t, "wan"); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			fromISP(ike)
			if n := len(drain(t, c)); n != 0 {
				t.Errorf("%d frames after the end", n)
			}
			if hook, err := c.Attach(wan, Options{XDP: h.xdp}); err != nil || hook != h.name {
				t.Fatalf("attached again by %q: %v", hook, err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if after := tc(t, "wan"); after != before {
				t.Errorf("before:\n%s\nafter Close:\n%s", before, after)
			}
		})
	}
}

// TestSurroundings attaches where others have filters and qdiscs, which stay.
func TestSurroundings(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	wan := veth(t)
	c := openTest(t, bothPeers)
	c.noTCX = true
	attach := func() (string, error) { return c.Attach(wan, Options{}) }
	detach := func() {
		t.Helper()
		if err := c.Detach(wan); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "tc qdisc add dev wan clsact")
	other := func(hook string, prio int) {
		t.Helper()
		run(t, fmt.Sprintf("tc filter add dev wan %s prio %d protocol all bpf bytecode 1,6\u00a00\u00a00\u00a00, flowid 1:1", hook, prio))
	}
	other("ingress", 1)
	other("egress", 2)
	before := tc(t, "wan")
	if _, err := attach(); err != nil {
		t.Fatal(err)
	}
	if during := tc(t, "wan"); !strings.Contains(during, filterPrefix) || len(during) <= len(before) {
		t.Errorf("attached, but tc shows:\n%s", during)
	}
	detach()
	if after := tc(t, "wan"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}

	// The qdisc is ours, but others use it when we leave.
	run(t, "tc qdisc del dev wan clsact")
	if _, err := attach(); err != nil {
		t.Fatal(err)
	}
	other("egress", 7)
	detach()
	if after := tc(t, "wan"); !strings.Contains(after, "pref 7") || strings.Contains(after, filterPrefix) {
		t.Errorf("after:\n%s", after)
	}

	// An ingress qdisc cannot be told from clsact by its handle.
	run(t, "tc qdisc del dev wan clsact")
	run(t, "tc qdisc add dev wan ingress")
	before = tc(t, "wan")
	if _, err := attach(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("with an ingress qdisc: %v", err)
	}
	if after := tc(t, "wan"); after != before {
		t.Errorf("before:\n%s\nafter a failure:\n%s", before, after)
	}
	c.noTCX = false
	if _, err := attach(); err != nil && !errors.Is(err, ErrUnsupported) { // a kernel without tcx
		t.Errorf("tcx beside an ingress qdisc: %v", err)
	}

	// The interface goes away.
	run(t, "ip link del wan")
	detach()
	if _, err := attach(); !errors.Is(err, unix.ENODEV) {
		t.Errorf("on an interface that is gone: %v", err)
	}
	wan = veth(t)
	c.noTCX = true
	if _, err := attach(); err != nil {
		t.Fatal(err)
	}
	run(t, "ip link del wan")
	detach()
}

// TestCrash finds what a run has left that was killed, and leaves alone what
// one has that lives.
func TestCrash(t *testing.T) {
	const variable = "VPNPROBE_TEST_CRASH"
	if !netnstest.Child(t) {
		return
	}
	if os.Getenv(variable) != "" {
		c := openTest(t, bothPeers)
		c.noTCX = true
		if _, err := c.Attach(index(t, "wan"), Options{}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("attached")
		_ = unix.Pause() // until killed
	}
	wan := veth(t)
	before := tc(t, "wan")
	start := func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestCrash$")
		cmd.Env = append(os.Environ(), variable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread() // Pdeathsig is about the thread
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	end := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	end(start())
	if left := tc(t, "wan"); strings.Count(left, filterPrefix) != 2 {
		t.Fatalf("a killed run left:\n%s", left)
	}
	living := start() // it removes what was left
	if got := tc(t, "wan"); strings.Count(got, filterPrefix) != 2 {
		t.Errorf("beside one that lives:\n%s", got)
	}
	c := openTest(t, bothPeers)
	c.noTCX = true
	if _, err := c.Attach(wan, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := tc(t, "wan"); strings.Count(got, filterPrefix) != 4 {
		t.Errorf("two that live:\n%s", got)
	}
	end(living)
	if err := c.Detach(wan); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(wan, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Detach(wan); err != nil {
		t.Fatal(err)
	}
	if after := tc(t, "wan"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestClsactFails leaves the interface as it was when a filter is refused: the
// qdisc is there by then, and maybe the other filter.
func TestClsactFails(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	wan := veth(t)
	before := tc(t, "wan")
	c := openTest(t, bothPeers)
	o, err := newOwner()
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	nl, err := dialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.close()
	good, bad := c.get(t, tcIn), c.get(t, xdpIn) // of a type that tc does not take
	for name, progs := range map[string][2]*ebpf.Program{"in": {bad, good}, "out": {good, bad}} {
		if made, err := attachClsact(nl, wan, o, progs[0], progs[1]); err == nil || made != nil {
			t.Errorf("%s: attached: %v, %v", name, made, err)
		}
		if after := tc(t, "wan"); after != before {
			t.Errorf("%s: left behind:\n%s\nbefore:\n%s", name, after, before)
		}
	}
}
