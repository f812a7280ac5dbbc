package filter

// Field is something a rule reads of a packet.
type Field uint8

// The fields. Raw ones read bits that nft 1.0.6 has no name for.
const (
	InPort Field = iota + 1
	OutPort
	InBridge
	OutBridge
	EtherSource
	EtherDestination
	EtherType
	ARPHeader // hardware and protocol type and length: 6 bytes
	ARPOperation
	ARPSenderMAC
	ARPSender
	ARPTarget
	IPv4Header // version and header length
	IPv4Fragment
	IPv4TTL
	IPv4Protocol
	IPv4Source
	IPv4Destination
	IPv6Length
	IPv6Next
	IPv6HopLimit
	IPv6Source
	IPv6Destination
	IPv6FragmentNext   // next header of a fragment header that follows the IPv6 header
	IPv6FragmentOffset // offset, two reserved bits, more-fragments bit
	Protocol           // last header, behind IPv6 extension headers
	SourcePort
	DestinationPort
	TCPFlags
	ICMPType // first byte of the transport header, both families; of VRRP version and type
	ICMPCode // second; of VRRP the virtual router
	NDTarget
	NDOption // first option of a neighbour message: type, length, address
	NDOptionType
	QuotedHeader4   // version and header length of a quoted packet
	QuotedSource4   // of the packet that an ICMP error quotes
	QuotedProtocol4 // same
	QuotedPort4     // its source port
	QuotedSource6
	QuotedProtocol6
	QuotedPort6
	QuotedFragmentNext6 // next header behind the fragment header of a quoted packet
	QuotedFragmentPort6 // and the source port behind that
	ConnState
	Version // NFPROTO_* of a packet in the inet family
)

// Header is the header that a payload field counts from.
type Header uint8

// The headers. FromMeta and FromConntrack are no payload.
const (
	FromMeta Header = iota
	FromConntrack
	FromLink
	FromNetwork
	FromTransport
)

// MetaKey names packet data that is not payload.
type MetaKey uint8

// The meta keys in use.
const (
	MetaInPort MetaKey = iota + 1
	MetaOutPort
	MetaInBridge
	MetaOutBridge
	MetaProtocol
	MetaVersion
)

// Shape is how a field is read and written.
type Shape struct {
	Text   string  // in nft's language
	Type   string  // nft's data type; integer for raw fields
	Bytes  int     // width
	Header Header  // where it is read
	Meta   MetaKey // for FromMeta
	Offset int     // bytes from Header
	Raw    bool    // the text is a raw payload expression: sets that use it are declared by typeof
}

// Padded is the field's width in a concatenation: registers hold four bytes.
func (s Shape) Padded() int { return (s.Bytes + 3) / 4 * 4 }

// Shape returns how the field is read.
func (f Field) Shape() Shape { return shapes[f] }

var shapes = map[Field]Shape{
	InPort:              {Text: "iifname", Type: "ifname", Bytes: 16, Meta: MetaInPort},
	OutPort:             {Text: "oifname", Type: "ifname", Bytes: 16, Meta: MetaOutPort},
	InBridge:            {Text: "meta ibrname", Type: "ifname", Bytes: 16, Meta: MetaInBridge},
	OutBridge:           {Text: "meta obrname", Type: "ifname", Bytes: 16, Meta: MetaOutBridge},
	EtherDestination:    {Text: "ether daddr", Type: "ether_addr", Bytes: 6, Header: FromLink, Offset: 0},
	EtherSource:         {Text: "ether saddr", Type: "ether_addr", Bytes: 6, Header: FromLink, Offset: 6},
	EtherType:           {Text: "ether type", Type: "ether_type", Bytes: 2, Header: FromLink, Offset: 12},
	ARPHeader:           {Text: "@nh,0,48", Type: "integer", Bytes: 6, Header: FromNetwork, Offset: 0, Raw: true},
	ARPOperation:        {Text: "arp operation", Type: "arp_op", Bytes: 2, Header: FromNetwork, Offset: 6},
	ARPSenderMAC:        {Text: "arp saddr ether", Type: "ether_addr", Bytes: 6, Header: FromNetwork, Offset: 8},
	ARPSender:           {Text: "arp saddr ip", Type: "ipv4_addr", Bytes: 4, Header: FromNetwork, Offset: 14},
	ARPTarget:           {Text: "arp daddr ip", Type: "ipv4_addr", Bytes: 4, Header: FromNetwork, Offset: 24},
	IPv4Header:          {Text: "@nh,0,8", Type: "integer", Bytes: 1, Header: FromNetwork, Offset: 0, Raw: true},
	IPv4Fragment:        {Text: "ip frag-off", Type: "integer", Bytes: 2, Header: FromNetwork, Offset: 6},
	IPv4TTL:             {Text: "ip ttl", Type: "integer", Bytes: 1, Header: FromNetwork, Offset: 8},
	IPv4Protocol:        {Text: "ip protocol", Type: "inet_proto", Bytes: 1, Header: FromNetwork, Offset: 9},
	IPv4Source:          {Text: "ip saddr", Type: "ipv4_addr", Bytes: 4, Header: FromNetwork, Offset: 12},
	IPv4Destination:     {Text: "ip daddr", Type: "ipv4_addr", Bytes: 4, Header: FromNetwork, Offset: 16},
	IPv6Length:          {Text: "ip6 length", Type: "integer", Bytes: 2, Header: FromNetwork, Offset: 4},
	IPv6Next:            {Text: "ip6 nexthdr", Type: "inet_proto", Bytes: 1, Header: FromNetwork, Offset: 6},
	IPv6HopLimit:        {Text: "ip6 hoplimit", Type: "integer", Bytes: 1, Header: FromNetwork, Offset: 7},
	IPv6Source:          {Text: "ip6 saddr", Type: "ipv6_addr", Bytes: 16, Header: FromNetwork, Offset: 8},
	IPv6Destination:     {Text: "ip6 daddr", Type: "ipv6_addr", Bytes: 16, Header: FromNetwork, Offset: 24},
	IPv6FragmentNext:    {Text: "@nh,320,8", Type: "integer", Bytes: 1, Header: FromNetwork, Offset: 40, Raw: true},
	IPv6FragmentOffset:  {Text: "@nh,336,16", Type: "integer", Bytes: 2, Header: FromNetwork, Offset: 42, Raw: true},
	Protocol:            {Text: "meta l4proto", Type: "inet_proto", Bytes: 1, Meta: MetaProtocol},
	SourcePort:          {Text: "th sport", Type: "inet_service", Bytes: 2, Header: FromTransport, Offset: 0},
	DestinationPort:     {Text: "th dport", Type: "inet_service", Bytes: 2, Header: FromTransport, Offset: 2},
	TCPFlags:            {Text: "@th,104,8", Type: "integer", Bytes: 1, Header: FromTransport, Offset: 13, Raw: true},
	ICMPType:            {Text: "@th,0,8", Type: "integer", Bytes: 1, Header: FromTransport, Offset: 0, Raw: true},
	ICMPCode:            {Text: "@th,8,8", Type: "integer", Bytes: 1, Header: FromTransport, Offset: 1, Raw: true},
	NDTarget:            {Text: "@th,64,128", Type: "integer", Bytes: 16, Header: FromTransport, Offset: 8, Raw: true},
	NDOption:            {Text: "@th,192,64", Type: "integer", Bytes: 8, Header: FromTransport, Offset: 24, Raw: true},
	NDOptionType:        {Text: "@th,192,16", Type: "integer", Bytes: 2, Header: FromTransport, Offset: 24, Raw: true},
	QuotedHeader4:       {Text: "@th,64,8", Type: "integer", Bytes: 1, Header: FromTransport, Offset: 8, Raw: true},
	QuotedSource4:       {Text: "@th,160,32", Type: "integer", Bytes: 4, Header: FromTransport, Offset: 20, Raw: true},
	QuotedProtocol4:     {Text: "@th,136,8", Type: "integer", Bytes: 1, Header: FromTransport, Offset: 17, Raw: true},
	QuotedPort4:         {Text: "@th,224,16", Type: "integer", Bytes: 2, Header: FromTransport, Offset: 28, Raw: true},
	QuotedSource6:       {Text: "@th,128,128", Type: "integer", Bytes: 16, Header: FromTransport, Offset: 16, Raw: true},
	QuotedProtocol6:     {Text: "@th,112,8", Type: "integer", Bytes: 1, Header: FromTransport, Offset: 14, Raw: true},
	QuotedPort6:         {Text: "@th,384,16", Type: "integer", Bytes: 2, Header: FromTransport, Offset: 48, Raw: true},
	QuotedFragmentNext6: {Text: "@th,384,8", Type: "integer", Bytes: 1, Header: FromTransport, Offset: 48, Raw: true},
	QuotedFragmentPort6: {Text: "@th,448,16", Type: "integer", Bytes: 2, Header: FromTransport, Offset: 56, Raw: true},
	Version:             {Text: "meta nfproto", Type: "nf_proto", Bytes: 1, Meta: MetaVersion},
	ConnState:           {Text: "ct state", Type: "ct_state", Bytes: 4, Header: FromConntrack},
}
