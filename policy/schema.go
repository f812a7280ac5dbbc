package policy

import (
	"net/netip"
	"time"
)

// at is a scalar as an operator wrote it, with its place. An absent one has no place.
type at[T any] struct {
	V   T
	Pos Pos
}

// written reports whether the scalar stands in a file.
func (a at[T]) written() bool { return a.Pos.Line != 0 }

// or returns the scalar's value, or the default when it is absent.
func (a at[T]) or(def T) T {
	if a.written() {
		return a.V
	}
	return def
}

// entry is one entry of a map whose keys are names.
type entry[K ~string, T any] struct {
	Name  K
	Pos   Pos // of the name
	Value T
}

// entries is a map as written, merged over all files.
type entries[K ~string, T any] struct {
	list  []entry[K, T]
	index map[K]int
}

// The document types below are the schema: the decoder, the JSON schema and the policy reference all read their tags.
//
//	yaml     the key; ",required" when an operator must write it
//	doc      what the reference and the JSON schema say of it
//	default  what holds when it is absent

type document struct {
	Zones       []at[ZoneName]                    `yaml:"zones" doc:"Infrastructures that share nothing: no VLAN, no blade, no service, no guest."`
	Sites       []at[SiteName]                    `yaml:"sites" doc:"Places with a backbone router of their own."`
	Networks    entries[NetworkName, networkDoc]  `yaml:"networks" doc:"VLANs, by name."`
	Blades      entries[BladeName, bladeDoc]      `yaml:"blades" doc:"Virtualization hosts, by name."`
	Services    entries[ServiceName, serviceDoc]  `yaml:"services" doc:"What users reach, by name."`
	Directors   entries[GuestName, directorDoc]   `yaml:"directors" doc:"Load balancers, KVM guests, by name."`
	RealServers entries[GuestName, realServerDoc] `yaml:"realservers" doc:"Nodes that answer, LXC or KVM guests, by name."`
	Rules       entries[ruleName, ruleDoc]        `yaml:"rules" doc:"What may speak with what beside VIP traffic, by name. What no rule allows is dropped."`
	Hosts       entries[ruleName, hostDoc]        `yaml:"hosts" doc:"What may reach the management address of the blades, by name."`
	Alerts      []alertDoc                        `yaml:"alerts" doc:"Where alerts are sent."`
	Expect      []expectDoc                       `yaml:"expect" doc:"Tests of the policy itself."`
}

type ruleName string

type networkDoc struct {
	Zone    at[ZoneName]       `yaml:"zone,required" doc:"The zone that the network belongs to."`
	Role    at[NetworkRole]    `yaml:"role,required" doc:"uplink: eth0 of directors. service: eth1 of all guests. return: eth0 of real servers."`
	VLAN    at[VLANID]         `yaml:"vlan,required" doc:"802.1Q identifier. Two networks that meet at a site have different ones."`
	Sites   []at[SiteName]     `yaml:"sites" doc:"Where the VLAN is carried." default:"every site"`
	Subnets []at[netip.Prefix] `yaml:"subnets,required" doc:"IPv4 and IPv6 subnets. No subnet overlaps another, in the whole fleet."`
	Routers []at[netip.Addr]   `yaml:"routers" default:"none" doc:"Routers' addresses in the subnets. Required for uplink and return. The first of each family is the default route; all of them may speak as routers."`
}

type bladeDoc struct {
	Site       at[SiteName] `yaml:"site,required" doc:"Where the blade stands."`
	Zone       at[ZoneName] `yaml:"zone,required" doc:"The one zone whose networks and guests it carries."`
	Trunk      at[nicName]  `yaml:"trunk,required" doc:"The NIC that carries every VLAN, tagged."`
	Management at[nicName]  `yaml:"management" doc:"The NIC of the blade's own address. No guest knows it." default:"none"`
}

type serviceDoc struct {
	Zone         at[ZoneName]      `yaml:"zone,required" doc:"The zone of its real servers and directors."`
	VIPs         []at[netip.Addr]  `yaml:"vips,required" doc:"Addresses that users reach, outside every network; in the subnets of the uplink where directors announce by VRRP."`
	Ports        []at[PortRange]   `yaml:"ports,required" doc:"What is balanced: 443/tcp, 53/udp, 8000-8099/tcp."`
	Clients      []at[Selector]    `yaml:"clients" doc:"Who may use it: any, addresses, prefixes." default:"[any]"`
	Balance      balanceDoc        `yaml:"balance" doc:"How connections are spread."`
	Persistence  at[time.Duration] `yaml:"persistence" doc:"How long a client keeps its real server, in whole seconds." default:"none"`
	Persistence4 at[int]           `yaml:"persistence-v4" doc:"Length of the IPv4 prefix whose clients share a real server." default:"32" min:"1" max:"32"`
	Persistence6 at[int]           `yaml:"persistence-v6" doc:"Length of the IPv6 prefix whose clients share a real server." default:"128" min:"1" max:"128"`
	Check        *checkDoc         `yaml:"check" doc:"How real servers are checked. One of tcp, http, https, smtp, dns, script." default:"tcp on the first TCP port; none for a service without one"`
	Quorum       quorumDoc         `yaml:"quorum" doc:"How many real servers a service needs to be announced."`
	Sorry        at[GuestName]     `yaml:"sorry" doc:"A real server of the zone that answers when no other is left." default:"none"`
}

type balanceDoc struct {
	Scheduler at[scheduler]     `yaml:"scheduler" doc:"IPVS scheduler." default:"wlc"`
	Mode      at[Mode]          `yaml:"mode" doc:"locality: the director's own site first. survive: the same table on every director, for scheduler mh or sh. spread: plain weights." default:"spread"`
	SlowStart at[time.Duration] `yaml:"slow-start" doc:"How long the weight of a real server that comes back takes to grow to its whole, in whole seconds. Not in mode survive." default:"none"`
	OnePacket at[bool]          `yaml:"one-packet" doc:"Each UDP packet is balanced by itself and nothing is remembered of it." default:"false"`
	Remote    at[Share]         `yaml:"remote" doc:"Share of the weight that real servers of other sites get in mode locality. 0: only when no local one is up." default:"0"`
}

type quorumDoc struct {
	Up         at[int]      `yaml:"up" doc:"Real servers that must be up." default:"1" min:"1" max:"65535"`
	Hysteresis at[int]      `yaml:"hysteresis" doc:"A service that has its quorum keeps it with this many less, and never without any." default:"0" min:"0" max:"65535"`
	OnUp       at[filePath] `yaml:"on-up" doc:"Program that a director runs when the service gains its quorum." default:"none"`
	OnDown     at[filePath] `yaml:"on-down" doc:"Program that a director runs when it loses it." default:"none"`
}

type checkDoc struct {
	TCP      *tcpCheckDoc      `yaml:"tcp" doc:"Opens a connection."`
	HTTP     *httpCheckDoc     `yaml:"http" doc:"Asks for a page."`
	HTTPS    *httpCheckDoc     `yaml:"https" doc:"Asks for a page over TLS. The certificate is not verified."`
	SMTP     *smtpCheckDoc     `yaml:"smtp" doc:"Says EHLO to a mail server."`
	DNS      *dnsCheckDoc      `yaml:"dns" doc:"Asks a question over UDP."`
	Script   *scriptCheckDoc   `yaml:"script" doc:"Runs a program in the director: exit status 0 is up."`
	Interval at[time.Duration] `yaml:"interval" doc:"From the start of one check to the start of the next." default:"2s"`
	Timeout  at[time.Duration] `yaml:"timeout" doc:"Not longer than the interval." default:"1s"`
	Rise     at[int]           `yaml:"rise" doc:"Good answers in a row before a server is up." default:"2" min:"1" max:"100"`
	Fall     at[int]           `yaml:"fall" doc:"Bad answers in a row before a server is down." default:"3" min:"1" max:"100"`
	Pos      Pos               `yaml:"-"`
}

type tcpCheckDoc struct {
	Port at[portNumber] `yaml:"port" doc:"TCP port." default:"the first TCP port of the service"`
	Pos  Pos            `yaml:"-"`
}

type httpCheckDoc struct {
	Port   at[portNumber] `yaml:"port" doc:"TCP port." default:"the first TCP port of the service"`
	Path   at[urlPath]    `yaml:"path" doc:"Path of the page." default:"/"`
	Host   at[hostText]   `yaml:"host" doc:"Name in the Host header, and for TLS." default:"the address"`
	Status at[int]        `yaml:"status" doc:"Status code that means up." default:"200" min:"100" max:"599"`
	Body   at[string]     `yaml:"body" doc:"Text that the first 64 KiB of the page hold." default:"any"`
	Pos    Pos            `yaml:"-"`
}

type smtpCheckDoc struct {
	Port at[portNumber] `yaml:"port" doc:"TCP port." default:"the first TCP port of the service"`
	Host at[hostText]   `yaml:"host" doc:"Name that the check gives as its own." default:"bladenet-check.invalid"`
	Pos  Pos            `yaml:"-"`
}

type dnsCheckDoc struct {
	Name at[dnsName]    `yaml:"name,required" doc:"Name that is asked for."`
	Type at[recordType] `yaml:"type" doc:"Record type." default:"A"`
	Port at[portNumber] `yaml:"port" doc:"UDP port." default:"53"`
	Pos  Pos            `yaml:"-"`
}

type scriptCheckDoc struct {
	Path       at[filePath]   `yaml:"path,required" doc:"Absolute path of the program. It gets the address and the port as arguments."`
	Port       at[portNumber] `yaml:"port" doc:"Port that the program is told." default:"the first port of the service"`
	SetsWeight at[bool]       `yaml:"sets-weight" doc:"Exit status 2 to 255 is up as well, and gives the weight: the status less 2. Not in mode survive." default:"false"`
	Pos        Pos            `yaml:"-"`
}

type interfaceDoc struct {
	Network   at[NetworkName]  `yaml:"network,required" doc:"The network that the interface is in."`
	Addresses []at[netip.Addr] `yaml:"addresses,required" doc:"Its addresses, inside the network's subnets."`
	Pos       Pos              `yaml:"-"`
}

type directorDoc struct {
	Blade    at[BladeName] `yaml:"blade,required" doc:"Where it runs."`
	Image    at[imageName] `yaml:"image" doc:"Base image." default:"director"`
	Memory   at[Size]      `yaml:"memory" doc:"Memory." default:"512MiB"`
	CPUs     at[int]       `yaml:"cpus" doc:"Virtual processors." default:"1" min:"1" max:"256"`
	Eth0     *interfaceDoc `yaml:"eth0,required" doc:"In an uplink network of its site: requests arrive here, VIPs are announced here."`
	Eth1     *interfaceDoc `yaml:"eth1,required" doc:"In a service network: requests leave here for real servers."`
	Drain    at[bool]      `yaml:"drain" doc:"Announces nothing: users come by the other directors, the connections that it has go on. bladectl drain writes it." default:"false"`
	Sync     at[int]       `yaml:"sync" doc:"Tells the directors of its service network that have the same number of its connections, and hears of theirs: they go on when one of them fails, whatever the scheduler. Services in survive mode need none." default:"none" min:"1" max:"255"`
	Announce announceDoc   `yaml:"announce" doc:"How routers learn of its VIPs: none, or one of ospf, bgp and vrrp." default:"none, with a warning"`
}

type realServerDoc struct {
	Blade      at[BladeName]                   `yaml:"blade,required" doc:"Where it runs."`
	Driver     at[Driver]                      `yaml:"driver" doc:"What runs it: lxc, a container; kvm, a virtual machine, for software that needs a kernel of its own. Its image is built for the same." default:"lxc"`
	Image      at[imageName]                   `yaml:"image,required" doc:"Base image."`
	Memory     at[Size]                        `yaml:"memory" doc:"Memory." default:"512MiB"`
	CPUs       at[int]                         `yaml:"cpus" doc:"Processors." default:"1" min:"1" max:"256"`
	PIDs       at[int]                         `yaml:"pids" doc:"Processes and threads that a container may have at a time." default:"1024" min:"16" max:"1048576"`
	IOWeight   at[int]                         `yaml:"io-weight" doc:"A container's part of a busy disk beside the others'. The blade's disk must have a scheduler that follows weights (bfq): bladectl doctor says so." default:"100" min:"1" max:"1000"`
	Disk       at[Size]                        `yaml:"disk" doc:"How much a container may write into its clone; volumes are not counted. The file system of the state folder must keep project quotas (ext4, xfs)." default:"none"`
	Drain      at[bool]                        `yaml:"drain" doc:"Takes no new connections: those that it has go on. bladectl drain writes it." default:"false"`
	Spare      at[bool]                        `yaml:"spare" doc:"Is off until directors of its blade say that a service of it has lost its quorum, and goes off again when the others have had the quorum for five minutes and its connections have ended." default:"false"`
	Privileged at[bool]                        `yaml:"privileged" doc:"Runs without a user namespace of its own: root in it is root of the blade, kept in only by the capabilities that it lacks. For an image store whose file system cannot show files with other owners (overlay, NFS, virtiofs before Linux 6.12), or a program that insists on /sys." default:"false"`
	Serves     *entries[ServiceName, serveDoc] `yaml:"serves,required" doc:"The services that it answers for."`
	Volumes    entries[VolumeName, volumeDoc]  `yaml:"volumes" doc:"Folders of the blade that outlive the guest's clone, by name." default:"none"`
	Eth0       *interfaceDoc                   `yaml:"eth0,required" doc:"In a return network: answers leave here."`
	Eth1       *interfaceDoc                   `yaml:"eth1,required" doc:"In a service network: requests and checks arrive here."`
}

type serveDoc struct {
	Weight at[int] `yaml:"weight" doc:"Its part among the real servers of the service. 0: no new connections." default:"100" min:"0" max:"65535"`
}

type volumeDoc struct {
	Path     at[volumePath] `yaml:"path,required" doc:"Where the guest has it, an absolute path. Not /, and not in /dev, /proc, /run or /sys."`
	ReadOnly at[bool]       `yaml:"read-only" doc:"The guest cannot write there." default:"false"`
}

type announceDoc struct {
	OSPF *ospfDoc `yaml:"ospf" doc:"OSPFv2 and OSPFv3 on eth0."`
	BGP  *bgpDoc  `yaml:"bgp" doc:"BGP-4 with each router of the uplink."`
	VRRP *vrrpDoc `yaml:"vrrp" doc:"VRRP, version 3, with one other director, for an uplink whose routers speak no routing protocol: of the two the one with the higher priority has the VIPs, which lie in the uplink's subnets."`
	Pos  Pos      `yaml:"-"`

	unclear bool // reported already
}

type ospfDoc struct {
	Area  at[areaID]        `yaml:"area" doc:"Area, as a dotted quad or a number." default:"0.0.0.0"`
	Hello at[time.Duration] `yaml:"hello" doc:"Hello interval, in whole seconds, as on the routers." default:"1s"`
	Dead  at[time.Duration] `yaml:"dead" doc:"Dead interval, in whole seconds, longer than hello, as on the routers." default:"4s"`
	BFD   bfdDoc            `yaml:"bfd" doc:"Watch the routers by BFD: true, or a map with interval and multiplier." default:"false"`
	Pos   Pos               `yaml:"-"`
}

type bgpDoc struct {
	AS     at[asNumber] `yaml:"as,required" doc:"The director's own AS number."`
	PeerAS at[asNumber] `yaml:"peer-as,required" doc:"The routers' AS number."`
	BFD    bfdDoc       `yaml:"bfd" doc:"Watch the routers by BFD: true, or a map with interval and multiplier." default:"false"`
	Pos    Pos          `yaml:"-"`
}

type vrrpDoc struct {
	ID       at[int]           `yaml:"id" doc:"Added to the last byte of each VIP it makes the VIP's virtual router identifier, from 1 to 255. Routers of the uplink that speak VRRP themselves must have others. The same on both directors." default:"0" min:"0" max:"255"`
	Priority at[int]           `yaml:"priority,required" doc:"The director with the higher one has the VIPs while it is well." min:"1" max:"254"`
	Interval at[time.Duration] `yaml:"interval" doc:"Between two advertisements, in whole hundredths of a second from 100ms to 40s. After three of them that are missing the other director takes over. The same on both directors." default:"1s"`
	Pos      Pos               `yaml:"-"`
}

type bfdDoc struct {
	Interval   at[time.Duration] `yaml:"interval" doc:"Between two packets, sent and wanted, in whole milliseconds from 10ms to 60s. The slower side decides." default:"300ms"`
	Multiplier at[int]           `yaml:"multiplier" doc:"So many missing packets end a session." default:"3" min:"2" max:"255"`
	Pos        Pos               `yaml:"-"`

	on bool
}

type ruleDoc struct {
	From  []at[Selector]  `yaml:"from,required" doc:"Who opens the connection: any, directors, realservers, guests' names, addresses, prefixes."`
	To    []at[Selector]  `yaml:"to,required" doc:"Whom it is opened to, written as from."`
	Allow []at[PortRange] `yaml:"allow,required" doc:"What is allowed: 22/tcp, 161/udp, icmp."`
}

type hostDoc struct {
	From  []at[Selector]  `yaml:"from,required" doc:"Who may open connections to blades: any, addresses, prefixes."`
	Allow []at[PortRange] `yaml:"allow,required" doc:"What is allowed: 22/tcp, icmp."`
}

type alertDoc struct {
	Webhook at[webhookURL] `yaml:"webhook" doc:"URL that alerts are posted to as JSON."`
	Command at[filePath]   `yaml:"command" doc:"Program on the blade that reads the same JSON from its standard input."`
	Mail    *mailDoc       `yaml:"mail" doc:"Mail by SMTP."`
	Pos     Pos            `yaml:"-"`
	Keys    int            `yaml:"-"` // how many there are, those that are wrong as well
}

type mailDoc struct {
	Relay        at[relayName]     `yaml:"relay,required" doc:"The server that takes the mail, as smtp.example.org:587."`
	From         at[mailAddress]   `yaml:"from,required" doc:"Sender."`
	To           []at[mailAddress] `yaml:"to,required" doc:"Receivers."`
	User         at[string]        `yaml:"user" doc:"Name to log in with, over TLS only." default:"no login"`
	PasswordFile at[filePath]      `yaml:"password-file" doc:"File on the blade that holds the password." default:"none"`
	Pos          Pos               `yaml:"-"`
}

type expectDoc struct {
	From       at[Endpoint]   `yaml:"from,required" doc:"An address, a guest or a blade."`
	As         at[netip.Addr] `yaml:"as" doc:"The source address used instead of from's own." default:"from's own"`
	To         targetDoc      `yaml:"to,required" doc:"[address, guest or blade, port/protocol or icmp]."`
	SourcePort at[portNumber] `yaml:"source-port" doc:"Source port." default:"an ephemeral one"`
	Flags      at[TCPFlags]   `yaml:"flags" doc:"TCP flags: syn, or syn,ack." default:"the first packet of a new connection"`
	Verdict    at[Verdict]    `yaml:"verdict,required" doc:"accept or drop, over every blade on the packet's way."`
	Why        at[string]     `yaml:"why" doc:"Shown when the expectation does not hold." default:"nothing"`
	Pos        Pos            `yaml:"-"`
}

type targetDoc struct {
	To   at[Endpoint]
	Port at[PortRange]
}
