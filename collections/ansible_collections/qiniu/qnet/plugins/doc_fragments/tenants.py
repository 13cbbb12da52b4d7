# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of networks, tenants, exports and L7 as the inventory nests them; _tenant has their options."""

from __future__ import annotations


class ModuleDocFragment:
    """The lists that are planned together, and whether they are the whole truth."""

    DOCUMENTATION = r"""
options:
  networks:
    description: The networks.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the network, a DNS label.
        type: str
        required: true
      vni:
        description:
          - VXLAN network identifier, 1 to 16777215, unique in the fleet.
          - Needed when the network is created.
        type: int
      pod_subnets:
        description:
          - Subnets that pods take their addresses from, in CIDR notation without host bits.
          - The first usable address of each is the pods' default gateway and is never given to a pod.
          - Needed when the network is created.
        type: list
        elements: str
      service_subnets:
        description: Subnets that Service IPs take their addresses from.
        type: list
        elements: str
      mtu:
        description: MTU inside the pods, 576 to 65535. V(0) removes it; then the hosts compute it from their
          underlay.
        type: int
  guests:
    description: Which networks may call services of which other networks; see M(qiniu.qnet.qnet_guest).
    type: list
    elements: dict
    suboptions:
      network:
        description: Name of the network that calls.
        type: str
        required: true
      home:
        description: Name of the network of the services that are called.
        type: str
        required: true
      vni:
        description:
          - VNI of calls, 1 to 16777214; answers have the number after it. Neither may be that of a network or of
            another guest.
          - Without it, a new guest gets the highest two that are free, and an existing one keeps its VNI.
        type: int
      addresses:
        description:
          - Addresses at which the called pods see the callers, one of each IP version at most, from the service
            subnets of O(guests[].home) and outside of the pod subnets of O(guests[].network).
          - Without it, a new guest gets the lowest free ones, and an existing one keeps its addresses.
        type: list
        elements: str
  tenants:
    description: The tenants.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the tenant, a DNS label.
        type: str
        required: true
      security_groups:
        description: Its security groups.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the group, a DNS label, unique in the fleet.
            type: str
            required: true
          egress:
            description:
              - What pods of the group reach outside of the overlay. Together the rules open what any of them opens, and
                nothing else.
              - No rule opens addresses of pods and Service IPs, which are reached by exports alone, nor those of hosts
                and tunnels, of a link, of groups, or of the metadata of clouds.
              - An empty list closes everything; so does a new group without it.
            type: list
            elements: dict
            suboptions:
              to:
                description: The addresses, as a subnet such as V(203.0.113.0/24) or as one address, IPv4 or IPv6.
                type: str
                required: true
              ports:
                description:
                  - Protocols and ports that the rule is limited to, each V(tcp/PORT), V(udp/PORT) or V(icmp).
                  - An empty list opens all; so does a rule without it.
                type: list
                elements: str
          broadcast:
            description:
              - Whether what a pod of the group sends to all, by broadcast or multicast, comes to all other pods
                of the group in the same network, on whatever host. It never comes to anybody else.
              - A new group gets V(false), and such packets are dropped.
            type: bool
          services:
            description: Its services.
            type: list
            elements: dict
            suboptions:
              name:
                description: Name of the service, a DNS label, unique in its group.
                type: str
                required: true
              network:
                description: Name of the network that its pods and Service IPs are in.
                type: str
                required: true
              drain_seconds:
                description:
                  - How long a pod that begins to drain keeps the connections that it has; then they are ended.
                  - V(-1) means as long as they last; so does a new service without it.
                type: int
              l7:
                description:
                  - How L7 balancers ask the service over HTTP, such as C(timeouts), C(retries) and C(backend_protocol).
                  - C(docs/design/l7.md) lists the options. A route that says one of them itself replaces it as a whole.
                  - They are replaced as a whole; an empty map clears them, and a new service without it has none.
                type: dict
              health_check:
                description:
                  - How its pods are checked, from the host that they are on.
                  - Only pods that pass are in rotation. A new one enters it when it has passed. While none passes,
                    all are kept.
                  - An empty dictionary means no check; so does a new service without it.
                type: dict
                suboptions:
                  type:
                    description:
                      - V(tcp) opens a connection to the port. V(http) also asks for the path and wants a status from
                        200 to 399. V(icmp) sends an echo request.
                      - Needed for a check.
                    type: str
                    choices: [tcp, http, icmp]
                  port:
                    description: Port to connect to, 1 to 65535. Needed for V(tcp) and V(http).
                    type: int
                  path:
                    description: Path to ask for with V(http), V(/) when left out.
                    type: str
                  interval_seconds:
                    description:
                      - Time from one check to the next, V(2) when left out.
                      - Between two states it is half of that.
                    type: float
                  timeout_seconds:
                    description:
                      - Time for an answer, not longer than the interval.
                      - V(1) when left out, or half the interval if that is less.
                    type: float
                  healthy_threshold:
                    description: Checks in a row that must go well before a pod enters the rotation, V(2) when left out.
                    type: int
                  unhealthy_threshold:
                    description: Checks in a row that must fail before a pod leaves the rotation, V(3) when left out.
                    type: int
              service_ips:
                description: Its Service IPs.
                type: list
                elements: dict
                suboptions:
                  name:
                    description: Name of the Service IP, a DNS label, unique in the service.
                    type: str
                    default: main
                  network:
                    description:
                      - Name of the network that it lies in, if not that of the service; that network needs to be a
                        guest of the network of the service. Then only groups that the service is exported to use it.
                      - Without it, a new Service IP is in the network of the service, and an existing one stays in
                        its network.
                    type: str
                  address:
                    description:
                      - The IPv4 or IPv6 address, from the service subnets of the network that it lies in.
                      - Without it, a new Service IP gets the lowest free address, and an existing one keeps its
                        address.
                    type: str
                  affinity:
                    description:
                      - V(none) balances every connection by itself; with V(client) one client address keeps its pod
                        while the set of pods
                        stays the same.
                      - A new Service IP gets V(none).
                    type: str
                    choices: [none, client]
                  affinity_seconds:
                    description:
                      - With C(affinity=client), a client keeps its pod for so many seconds after its last new
                        connection, whatever other pods come and go meanwhile; after that it may get another one.
                        1 to 65535.
                      - V(0) removes it. Without it, a client keeps its pod while the set of pods stays the same.
                    type: int
  exports:
    description: The exports.
    type: list
    elements: dict
    suboptions:
      service:
        description: The service, said as group/service.
        type: str
        required: true
      to:
        description: Name of the security group that may reach it.
        type: str
        required: true
      ports:
        description:
          - Protocols and ports that the export is limited to, each V(tcp/PORT), V(udp/PORT) or V(icmp).
          - An empty list opens all; so does a new export without it.
        type: list
        elements: str
      direct:
        description:
          - Whether the pods' own addresses may be reached as well as the Service IPs.
          - A new export does not allow it.
        type: bool
      expires:
        description:
          - When the export ends, in ISO 8601 with a time zone, such as V(2027-01-01T00:00:00Z). An expired export
            counts as removed.
          - An empty text means never; so does a new export without it.
        type: str
  l7_listeners:
    description: The L7 listeners.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the listener, a DNS label, unique in the fleet.
        type: str
        required: true
      balancer:
        description:
          - The service whose pods run nginx, said as group/service.
          - Needed when the listener is created.
        type: str
      protocol:
        description:
          - What is spoken there.
          - Needed when the listener is created.
        type: str
        choices: [http, https, tcp, udp]
      port:
        description:
          - The port, 1 to 65535, unique in the balancer for TCP and for UDP.
          - Needed when the listener is created.
        type: int
      settings:
        description:
          - All other options of the listener. C(docs/design/l7.md) lists them with the nginx directives behind them.
          - They are replaced as a whole; an empty map clears them.
        type: dict
  l7_routes:
    description: The L7 routes.
    type: list
    elements: dict
    suboptions:
      listener:
        description:
          - Name of the listener.
        type: str
        required: true
      name:
        description:
          - Name of the route, a DNS label, unique in its listener.
        type: str
        required: true
      settings:
        description:
          - The options of the route, such as C(hosts), C(path) and C(backends).
          - C(docs/design/l7.md) lists them with the nginx directives behind them.
          - They are replaced as a whole; an empty map clears them.
        type: dict
  purge:
    description:
      - V(true) makes the lists that are given the whole truth. Objects of theirs that are in the database and not
        listed are removed in the same
        transaction, in the right order; with a service, its pods go as well, and the diff says so.
      - It holds for what is inside of an object too. An option that is left out takes its default, so that an export
        whose C(expires) was deleted from the inventory no longer expires. Allocated addresses stay as they are.
      - With V(false) what is left out, objects and options, is left alone.
    type: bool
    default: false
"""
