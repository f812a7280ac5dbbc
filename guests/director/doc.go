// Package director owns what a director does with its wanted state: which VIPs are on its loopback, which real servers take
// new connections and with which weight, and what the blade is told of it. Its subpackages own the IPVS table (ipvs), the
// health checks (health) and the routing daemons (announce). It runs inside the director, in its network namespace, and never
// knows of any other director.
//
// A VIP is announced by being on the loopback, so a change of health never touches the routing daemons' configuration.
package director
