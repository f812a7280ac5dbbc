// Command bladeguest is the static helper inside a virtual machine, a director or a real server. It wires guests/channel to
// guests/director or guests/server and never decides anything about balancing itself.
//
// As process 1 of an appliance it is init: it mounts, loads modules, collects orphans, hears the power button, and keeps one
// child alive, which is bladeguest again in its second role. The child listens for the blade, keeps the last good state on
// disk and does the work. A child that dies or stops beating takes its routing daemons with it, so that routers no longer
// send it users, and is started again; the IPVS table stays as it is meanwhile. In a machine whose image names a service, init
// starts that too, when the child says that the network is ready, and starts it again when it ends.
//
//	bladeguest --state FILE --listen vsock:9640|unix:PATH|tcp:ADDRESS:PORT [--run DIR] [--frr DIR]
//
// starts the second role alone in the network namespace of its caller.
package main
