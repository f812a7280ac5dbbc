package policy

import (
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Scalars of the schema that need no type outside of it.
type (
	nicName     string
	portNumber  uint16
	urlPath     string
	hostText    string
	dnsName     string
	recordType  string
	filePath    string
	volumePath  string
	imageName   string
	areaID      string
	asNumber    uint32
	webhookURL  string
	relayName   string
	mailAddress string
	scheduler   string
)

var (
	schedulers  = []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"}
	recordTypes = []string{"A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"}
)

// problem is what is wrong with a text, and what to write instead.
type problem struct {
	message, hint string
	usable        bool // the value is what was meant, so that what refers to it need not be reported as well
}

func bad(message, hint string) *problem { return &problem{message: message, hint: hint} }

// meant is a problem with a text whose meaning is clear.
func meant(message, hint string) *problem {
	return &problem{message: message, hint: hint, usable: true}
}

// oneOf parses a word out of a closed list.
func oneOf[T ~string](text, what string, words ...string) (T, *problem) {
	for _, w := range words {
		if text == w {
			return T(w), nil
		}
	}
	hint := "one of " + strings.Join(words, ", ")
	if near := nearest(text, words); near != "" {
		hint = "did you mean " + strconv.Quote(near) + "? " + hint
	}
	return "", bad(strconv.Quote(text)+" is no "+what, hint)
}

const labelHint = "lower-case letters, digits and hyphens, starting and ending with a letter or digit, at most 63"

// parseLabel checks an RFC 1123 label in lower case.
func parseLabel(text string) *problem {
	ok := len(text) >= 1 && len(text) <= 63 && text[0] != '-' && text[len(text)-1] != '-'
	for i := 0; ok && i < len(text); i++ {
		c := text[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if ok {
		return nil
	}
	if lower := strings.ToLower(text); lower != text && parseLabel(lower) == nil {
		return meant(strconv.Quote(text)+" is no name", "names are lower case: "+lower)
	}
	return meant(strconv.Quote(shorten(text))+" is no name", labelHint)
}

// shorten bounds a text that goes into a message.
func shorten(text string) string {
	if len(text) > 80 {
		return strings.ToValidUTF8(text[:77], "") + "..."
	}
	return text
}

// parseInt reads a decimal number within bounds.
func parseInt(text, what string, least, most int64) (int64, *problem) {
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || text[0] == '+' || len(text) > 1 && text[0] == '0' || strings.HasPrefix(text, "-0") {
		return 0, bad(strconv.Quote(shorten(text))+" is no "+what, "a whole number from "+itoa(least)+" to "+itoa(most))
	}
	if v < least || v > most {
		return 0, bad(what+" "+text+" is out of range", "from "+itoa(least)+" to "+itoa(most))
	}
	return v, nil
}

func itoa(v int64) string { return strconv.FormatInt(v, 10) }

// parseDuration reads one number and one unit.
func parseDuration(text string) (time.Duration, *problem) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	unit := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour}[text[len(digits):]]
	v, err := strconv.ParseUint(digits, 10, 32)
	if unit == 0 || err != nil {
		return 0, bad(strconv.Quote(shorten(text))+" is no duration", "a whole number and a unit: 500ms, 2s, 5m, 1h")
	}
	return time.Duration(v) * unit, nil
}

func parseSize(text string) (Size, *problem) {
	digits := strings.TrimRight(text, "KMGTiB")
	unit := map[string]Size{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[text[len(digits):]]
	v, err := strconv.ParseUint(digits, 10, 31)
	if unit == 0 || err != nil {
		return 0, bad(strconv.Quote(shorten(text))+" is no size", "a whole number and KiB, MiB or GiB: 512MiB")
	}
	size := Size(v) * unit
	if size < 32<<20 || size > 4<<40 {
		return 0, bad("memory of "+text+" is out of range", "from 32MiB to 4096GiB")
	}
	return size, nil
}

func parseShare(text string) (Share, *problem) {
	const hint = "a share of the weight: 0, 1%, 12.5%"
	if text == "0" {
		return 0, nil
	}
	digits, ok := strings.CutSuffix(text, "%")
	whole, part, _ := strings.Cut(digits, ".")
	v, err := strconv.ParseUint(whole, 10, 16)
	if !ok || err != nil || len(part) > 3 || strings.HasSuffix(digits, ".") {
		return 0, bad(strconv.Quote(shorten(text))+" is no share", hint)
	}
	share := Share(v) * 1000
	if part != "" {
		f, err := strconv.ParseUint((part + "00")[:3], 10, 16)
		if err != nil {
			return 0, bad(strconv.Quote(shorten(text))+" is no share", hint)
		}
		share += Share(f)
	}
	if share > 100_000 {
		return 0, bad("share "+text+" is out of range", "from 0 to 100%")
	}
	return share, nil
}

// parseAddr reads an address as policies allow it: no zone, no IPv4-mapped IPv6.
func parseAddr(text string) (netip.Addr, *problem) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil && strings.Contains(text, "/"):
		return a, bad(strconv.Quote(shorten(text))+" is no address", "an address without a prefix length")
	case err != nil:
		return a, bad(strconv.Quote(shorten(text))+" is no address", "an IPv4 or IPv6 address: 192.0.2.1, \"2001:db8::1\"")
	case a.Is4In6():
		return a, bad("IPv4-mapped IPv6 address "+text, "write "+a.Unmap().String())
	case a.Zone() != "":
		return a, bad("address "+text+" with a zone", "write it without "+strconv.Quote("%"+a.Zone()))
	}
	return a, nil
}

func parsePrefix(text string) (netip.Prefix, *problem) {
	if !strings.Contains(text, "/") {
		return netip.Prefix{}, bad(strconv.Quote(shorten(text))+" has no prefix length", "a subnet: 192.0.2.0/28, \"2001:db8::/64\"")
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, bad(strconv.Quote(shorten(text))+" is no subnet", "a subnet: 192.0.2.0/28, \"2001:db8::/64\"")
	case p.Addr().Is4In6():
		return p, bad("IPv4-mapped IPv6 prefix "+text, "write "+p.Addr().Unmap().String()+"/"+strconv.Itoa(max(p.Bits()-96, 0)))
	case p.Masked() != p:
		return p.Masked(), meant(text+" has host bits set", "the subnet is "+p.Masked().String())
	}
	return p, nil
}

// parseSelector reads one end of a rule.
func parseSelector(text string) (Selector, *problem) {
	switch text {
	case "any":
		return Selector{Any: true}, nil
	case "directors":
		return Selector{Role: RoleDirector}, nil
	case "realservers":
		return Selector{Role: RoleRealServer}, nil
	}
	switch {
	case strings.Contains(text, "/"):
		p, bad := parsePrefix(text)
		return Selector{Prefix: p}, bad
	case strings.ContainsAny(text, ".:"):
		a, bad := parseAddr(text)
		if bad != nil {
			return Selector{}, bad
		}
		return Selector{Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	return Selector{Guest: GuestName(text)}, parseLabel(text)
}

// parseEndpoint reads one end of an expectation; a name is taken for a guest's until Check knows better.
func parseEndpoint(text string) (Endpoint, *problem) {
	if strings.ContainsAny(text, ".:/") {
		a, bad := parseAddr(text)
		return Endpoint{Address: a}, bad
	}
	return Endpoint{Guest: GuestName(text)}, parseLabel(text)
}

const portHint = "443/tcp, 53/udp, 8000-8099/tcp or icmp"

func parsePortRange(text string) (PortRange, *problem) {
	if text == string(ICMP) {
		return PortRange{Protocol: ICMP}, nil
	}
	ports, proto, found := strings.Cut(text, "/")
	if !found || proto != string(TCP) && proto != string(UDP) {
		return PortRange{}, bad(strconv.Quote(shorten(text))+" is no port and protocol", portHint)
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	if first == "" || last == "" {
		return PortRange{}, bad(strconv.Quote(shorten(text))+" is no port and protocol", portHint)
	}
	from, p := parseInt(first, "port", 1, 65535)
	if p != nil {
		return PortRange{}, p
	}
	to, p := parseInt(last, "port", 1, 65535)
	if p != nil {
		return PortRange{}, p
	}
	if to < from {
		return PortRange{}, bad("port range "+text+" runs backwards", "write "+last+"-"+first+"/"+proto)
	}
	return PortRange{Protocol: Protocol(proto), First: uint16(from), Last: uint16(to)}, nil
}

func parseFlags(text string) (TCPFlags, *problem) {
	var f TCPFlags
	for _, word := range strings.Split(text, ",") {
		name, p := oneOf[hostText](strings.TrimSpace(word), "TCP flag", flagNames...)
		if p != nil {
			return 0, p
		}
		for i, n := range flagNames {
			if n == string(name) {
				f |= 1 << i
			}
		}
	}
	return f, nil
}

// parseNIC checks a link's name as the kernel does (dev_valid_name in net/core/dev.c).
func parseNIC(text string) (nicName, *problem) {
	switch {
	case text == "" || text == "." || text == "..":
		return "", bad(strconv.Quote(text)+" is no NIC", "the name that the kernel gives it, as eno1")
	case len(text) > portNameLength:
		return "", bad("NIC name "+strconv.Quote(shorten(text))+" is too long", "the kernel's names have at most 15 bytes")
	case strings.ContainsAny(text, "/: \t\n\v\f\r"):
		return "", bad("NIC name "+strconv.Quote(text)+" with a character that the kernel refuses", "no slash, colon or blank")
	}
	return nicName(text), nil
}

func parseURLPath(text string) (urlPath, *problem) {
	if !strings.HasPrefix(text, "/") || strings.ContainsAny(text, " \t\r\n#") || strings.ContainsFunc(text, notPrintable) {
		return "", bad(strconv.Quote(shorten(text))+" is no path of a URL", "it starts with / and holds no blanks: /health")
	}
	return urlPath(text), nil
}

func notPrintable(r rune) bool { return r <= ' ' || r >= 0x7f }

func parseFilePath(text string) (filePath, *problem) {
	if !path.IsAbs(text) || path.Clean(text) != text || text == "/" || strings.ContainsFunc(text, notPrintable) {
		return "", bad(strconv.Quote(shorten(text))+" is no absolute path of a program", "as /usr/lib/bladenet/checks/ldap-bind")
	}
	return filePath(text), nil
}

// volumePattern is what a volume's path is made of: nothing that a configuration file or a mount table would need to escape.
const volumePattern = "^(/[A-Za-z0-9._+@-]+)+$"

var volumePathRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(volumePattern) })

func parseVolumePath(text string) (volumePath, *problem) {
	const hint = "as /srv/data"
	if !volumePathRE().MatchString(text) || path.Clean(text) != text || len(text) > 255 {
		return "", bad(strconv.Quote(shorten(text))+" is no path for a volume: absolute, clean, of letters, digits and ._+@-", hint)
	}
	for _, own := range []string{"/dev", "/proc", "/run", "/sys"} {
		if text == own || strings.HasPrefix(text, own+"/") {
			return "", bad(text+" is no place for a volume: a guest gets a "+own+" of its own at each start", hint)
		}
	}
	return volumePath(text), nil
}

// parseDNSName checks a host name of labels joined by dots; underscores are allowed where what says so.
func parseDNSName(text, what string, underscore bool) *problem {
	name := strings.TrimSuffix(text, ".")
	ok := name != "" && len(name) <= 253
	for _, label := range strings.Split(name, ".") {
		if underscore {
			label = strings.ReplaceAll(label, "_", "x")
		}
		ok = ok && parseLabel(strings.ToLower(label)) == nil
	}
	if !ok {
		return bad(strconv.Quote(shorten(text))+" is no "+what, "as www.example.org")
	}
	return nil
}

func parseHost(text string) (hostText, *problem) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return hostText(text), nil
	}
	return hostText(text), parseDNSName(text, "host name", false)
}

func parseImage(text string) (imageName, *problem) {
	ok := text != "" && len(text) <= 128 && text[0] != '.' && text[0] != '-'
	for i := 0; ok && i < len(text); i++ {
		c := text[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':'
	}
	if !ok {
		return "", bad(strconv.Quote(shorten(text))+" is no image", "letters, digits, dots, colons, hyphens and underscores: web, director:2026-11")
	}
	return imageName(text), nil
}

// parseArea reads an OSPF area, as a dotted quad or a number (RFC 2328, section C.2).
func parseArea(text string) (areaID, *problem) {
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		return areaID(a.String()), nil
	}
	v, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return "", bad(strconv.Quote(shorten(text))+" is no OSPF area", "a dotted quad or a number: 0.0.0.0")
	}
	return areaID(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}).String()), nil
}

func parseRelay(text string) (relayName, *problem) {
	host, port, err := net.SplitHostPort(text)
	if n, numeric := strconv.Atoi(port); err != nil || numeric != nil || n < 1 || n > 65535 || host == "" || strings.ContainsFunc(text, notPrintable) {
		return "", bad(strconv.Quote(shorten(text))+" is no host and port", "as smtp.example.org:587")
	}
	if _, err := netip.ParseAddr(host); err != nil {
		if p := parseDNSName(host, "host name", false); p != nil {
			return "", p
		}
	}
	return relayName(text), nil
}

func parseMailAddress(text string) (mailAddress, *problem) {
	a, err := mail.ParseAddress(text)
	if err != nil || a.Address != text || strings.ContainsFunc(text, notPrintable) {
		return "", bad(strconv.Quote(shorten(text))+" is no mail address", "as ops@example.org")
	}
	return mailAddress(text), nil
}

func parseWebhook(text string) (webhookURL, *problem) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return "", bad(strconv.Quote(shorten(text))+" is no URL for alerts", "as https://alerts.example.org/bladenet")
	}
	return webhookURL(text), nil
}
