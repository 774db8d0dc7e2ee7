package exporter

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// fleet is a page's worth of peers in every state.
func fleet(t *testing.T) *Exporter {
	e := newTest(t, "branch-berlin", "cloud", "datacentre", "factory", "office", "stale", "new")
	ok := finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause)
	healthy := report("branch-berlin", start.Add(-9*time.Second), ok)
	healthy.Summary = both("The tunnel carries traffic in both directions.", "隧道双向通信正常。")
	healthy.Snapshot.Echoes[0].Replies, healthy.Snapshot.Echoes[0].Lost = 10, 0
	healthy.Snapshot.Echoes[1].Replies, healthy.Snapshot.Echoes[1].Lost = 10, 0
	healthy.Snapshot.Echoes[1].RTT = evidence.Some(evidence.RTT{Median: evidence.Seconds(1234 * time.Millisecond)})
	healthy.Snapshot.Capture = quiet()
	fits(healthy.Snapshot)
	e.Publish(healthy)
	down := finding("peer_firewall_drops_ike", diagnosis.Critical, diagnosis.Cause)
	down.Evidence = []diagnosis.Text{
		both("UDP 500: 3 requests sent over 10 s, no answer and no ICMP error", "UDP 500：10 秒内发送 3 个请求，没有应答，也没有 ICMP 错误"),
		both("UDP 4500: 203.0.113.9 says that a filter forbids it (ICMP type 3 code 13)", "UDP 4500：203.0.113.9 表示被过滤规则禁止（ICMP 类型 3 代码 13）"),
	}
	down.Remedy = both("Allow UDP 500 and 4500 and IP protocol 50 from 203.0.113.2 in the security group and the ACL of the peer.\nThen run the probe again.",
		"在对端的安全组和 ACL 中放通来自 203.0.113.2 的 UDP 500、4500 和 IP 协议 50。\n然后重新探测。")
	cloud := report("cloud", start.Add(-4*time.Second), down,
		finding("underlay_loss", diagnosis.Warning, diagnosis.Contributing),
		finding("natt_blocked", diagnosis.Critical, diagnosis.Suppressed), finding("inner_unreachable", diagnosis.Critical, diagnosis.Suppressed))
	cloud.Summary = both("The gateway answers ping, but a filter in front of it discards IKE, so no tunnel can be set up.", "网关可以 ping 通，但其前方的过滤设备丢弃了 IKE 报文，因此隧道无法建立。")
	e.Publish(cloud)
	datacentre := report("datacentre", start.Add(-3*time.Second), ok)
	datacentre.Snapshot.Capture = quiet()
	fits(datacentre.Snapshot)
	e.Publish(datacentre)
	e.Publish(report("factory", start.Add(-26*time.Hour), finding("underlay_loss", diagnosis.Warning, diagnosis.Cause)))
	e.Publish(report("factory", start.Add(-7*time.Second), finding("underlay_loss", diagnosis.Warning, diagnosis.Cause)))
	e.Publish(report("office", start.Add(-5*time.Second), finding(diagnosis.Undecided, diagnosis.Info, diagnosis.Cause)))
	e.Publish(report("stale", start.Add(-time.Hour), ok))
	return e
}

// quiet is a window in which all was well.
func quiet() evidence.Capture {
	c := capture()
	c.Mode, c.Why, c.Leaks, c.Talk = evidence.CaptureBPF, evidence.CaptureBest, nil, evidence.IKETalk{}
	c.In.Fragments, c.Out.Fragments = evidence.Fragments{}, evidence.Fragments{}
	c.In.Sequence.Lost, c.Out.Sequence.Lost = 0, 0
	return c
}

// fits makes every size pass.
func fits(s *evidence.Snapshot) {
	s.TCPSizes = nil
	s.MTUs = s.MTUs[:2:2]
	for i, mtu := range []int{1500, 1438} {
		s.MTUs[i].MTU, s.MTUs[i].Cached, s.MTUs[i].State = evidence.Some(mtu), evidence.Some(mtu), evidence.MTUFull
		s.MTUs[i].Fragmented = evidence.FragmentedProbe{}
	}
	s.TunnelMTU = evidence.Some(evidence.TunnelMTU{Inner: 1438, MSS4: 1398, MSS6: 1378})
}

// TestPageForPeople serves the page on PAGE_LISTEN for a minute, for someone
// who wants to look at it.
func TestPageForPeople(t *testing.T) {
	listen := os.Getenv("PAGE_LISTEN")
	if listen == "" {
		t.Skip("set PAGE_LISTEN=127.0.0.1:9793 to look at the page in a browser")
	}
	s := &http.Server{Addr: listen, Handler: fleet(t).Handler(Options{}), ReadHeaderTimeout: time.Second}
	time.AfterFunc(time.Minute, func() { s.Close() })
	if err := s.ListenAndServe(); err != http.ErrServerClosed {
		t.Fatal(err)
	}
}

func page(t *testing.T, e *Exporter, query string) *httptest.ResponseRecorder {
	t.Helper()
	w := ask(e.Handler(Options{}), "GET", "/"+query)
	if w.Code != http.StatusOK {
		t.Fatalf("GET /%s = %d %q", query, w.Code, w.Body)
	}
	return w
}

func TestPageOrderAndDetails(t *testing.T) {
	body := page(t, fleet(t), "").Body.String()
	var rows []string
	for _, m := range regexp.MustCompile(`(?s)<details class="peer (\w+)"( open)?>.*?<span class="name">([^<]*)</span>`).FindAllStringSubmatch(body, -1) {
		rows = append(rows, strings.TrimSpace(m[3]+" "+m[1]+m[2]))
	}
	const want = "cloud critical open, factory warning open, new unknown, office unknown, stale unknown open, branch-berlin ok, datacentre ok"
	if got := strings.Join(rows, ", "); got != want {
		t.Errorf("rows:\n got %s\nwant %s", got, want)
	}
	for _, want := range []string{
		"1 CRITICAL, 1 WARNING, 3 UNKNOWN, 2 OK", "STALE", "CRITICAL · peer_firewall_drops_ike", "1 d 2 h", "10 % loss", "12 ms", "MTU 1400", "no reply",
		"Then run the probe again.", "Explained by the above: natt_blocked, inner_unreachable", `<p class="stale">reported 1 h ago</p>`, `http-equiv="refresh"`, "1.23 s",
		"IKEv2 refuses the declared proposal, accepts another · IKEv1 main mode refuses every common algorithm from our address · group: modp1024 → modp2048 · asks for a cookie · strongSwan · NAT on our side · asked 38 s ago",
		"tunnel · MTU 1338 (black hole)", "Sizes: up to 1438 bytes fit into the tunnel · TCP MSS 1398 (IPv6 1378)</p>",
		"Sizes: up to 1346 bytes fit into the tunnel · TCP MSS 1306 (IPv6 1286) · tunnel: fragments lost · tunnel: the kernel believes 1438 · 1 TCP connection stuck on large segments</p>",
		"On the wire: packet ring · ESP in 300 packets, 3.55 % lost · ESP out 5 packets, 16.7 % lost on this host · 6 packets in clear · 10 fragments · the last DPD not answered by this side · 1 rekey failed · IKEv2: the authentication is refused",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestPageQueries(t *testing.T) {
	e := fleet(t)
	one := page(t, e, "?peer=datacentre&pause=1").Body.String()
	if strings.Count(one, "<details") != 1 || !strings.Contains(one, `class="peer ok" open`) || strings.Contains(one, "http-equiv") {
		t.Errorf("one peer, paused:\n%s", one)
	}
	zh := page(t, e, "?lang=zh").Body.String()
	for _, want := range []string{`<html lang="zh">`, "网关可以 ping 通", "严重", "然后重新探测。", "丢包 10 %", "IKEv2 拒绝所声明的提议，接受其他提议 · ", "隧道内 · MTU 1338（黑洞）", "大小： 隧道内可用 1438 字节 · TCP MSS 1398（IPv6 1378）", "线路： 报文环 · ESP 入 300 包，丢包 3.55 % · "} {
		if !strings.Contains(zh, want) {
			t.Errorf("the Chinese page lacks %q", want)
		}
	}
	if none := page(t, newTest(t), "").Body.String(); !strings.Contains(none, "There is no such peer.") {
		t.Errorf("without peers:\n%s", none)
	}
	w := ask(e.Handler(Options{}), "GET", "/", "Accept-Language", "zh-CN,zh;q=0.9")
	if !strings.Contains(w.Body.String(), `<html lang="zh">`) {
		t.Error("a browser that prefers Chinese gets another language")
	}
}

func TestPageEscapes(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	e := newTest(t, evil)
	f := finding(evil, diagnosis.Severity(evil), diagnosis.Cause)
	f.Evidence, f.Remedy = []diagnosis.Text{both(evil, evil)}, both(evil, evil)
	r := report(evil, start, f)
	r.Gateway, r.Summary = evil, both(evil, evil)
	r.Snapshot.MTUs = []evidence.PathMTU{{Role: evidence.Inner, State: evil, Probe: evil, Packets: 1, Cleared: evidence.Yes}}
	r.Snapshot.TunnelMTU = evidence.Some(evidence.TunnelMTU{Suite: evil, From: evil, Mode: evil})
	r.Snapshot.TCPSizes = []evidence.TCPSize{{Service: evil, Stalled: evidence.Yes, CannotLook: evil}}
	r.Snapshot.Host.MSSClamps.Rules = []evidence.MSSClamp{{Tool: evil, Where: evil, Rule: evil}}
	e.Publish(r)
	w := page(t, e, "?peer=%22%3E%3Cscript%3Ealert(1)%3C/script%3E%3Cimg%20src=x%20onerror=alert(1)%3E&lang=%22%3E%3Cb%3E")
	body := w.Body.String()
	if strings.Contains(body, "<script") || strings.Contains(body, "<img") || strings.Contains(body, "<b>") {
		t.Errorf("the page holds markup from outside:\n%s", body)
	}
	if !strings.Contains(body, "&lt;script&gt;") {
		t.Error("the hostile texts are not on the page")
	}
	policy := w.Header().Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("Content-Security-Policy: %s", policy)
	}
}

func TestDurations(t *testing.T) {
	en, zh := wordsIn("en"), wordsIn("zh")
	for d, want := range map[time.Duration][2]string{
		-time.Second:                 {"0 s", "0 秒"},
		59 * time.Second:             {"59 s", "59 秒"},
		61 * time.Second:             {"1 min 1 s", "1 分 1 秒"},
		25*time.Hour + time.Second:   {"1 d 1 h", "1 天 1 小时"},
		24*time.Hour + time.Minute:   {"1 d", "1 天"},
		time.Hour + 30*time.Second:   {"1 h", "1 小时"},
		90*time.Minute + time.Second: {"1 h 30 min", "1 小时 30 分"},
	} {
		if got := [2]string{en.duration(d), zh.duration(d)}; got != want {
			t.Errorf("duration(%v) = %q, want %q", d, got, want)
		}
	}
}
