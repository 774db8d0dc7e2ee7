// Package lab is a small Internet with a real IPsec tunnel across it, for
// tests that need to break one thing and see what vpnprobe makes of it.
//
//	 lan-a ── a ─────────── isp ─────────── b ── lan-b
//	10.1.0.10 │ 203.0.113.2  │  198.51.100.2 │  10.2.0.10
//	      (nat, optional) reference     (nat, optional)
//	      strongSwan      192.0.2.53    strongSwan
//	      and the agent
//
// Either gateway can run libreswan instead, and gateway b OpenIKED.
//
// The usual build machine's kernel has neither ESP nor netem, and a test must
// not touch that machine's network anyway. So every test boots its own User
// Mode Linux kernel: an ordinary process, about two seconds, no
// virtualisation. The machine's files are its root, read-only; whatever it
// writes lives in its memory, except one results directory.
//
// A test is ordinary test code with an ordinary [testing.T]. [Run] called on
// the host boots a kernel whose init is this same test binary; called again
// inside that kernel, it lays the network out and runs the body. What the test
// reports in there becomes the verdict of the subtest on the host.
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
//	func TestESPDropped(t *testing.T) {
//		lab.Run(t, "both ways", lab.Config{}, func(l *lab.Lab) {
//			l.Establish()
//			l.ISP.Drop("FORWARD", "-p esp")
//			report := l.Probe()
//			...
//		})
//	}
package lab
