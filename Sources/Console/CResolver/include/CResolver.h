#pragma once
#include <stddef.h>
#include <stdint.h>

/// One SRV record.
typedef struct {
    uint16_t priority, weight, port;
    /// Without the final dot.
    char target[256];
} qd_service;

/// The SRV records of a name such as _etcd-server._tcp.example.com, by the system's resolver and its configuration. Blocks for as long as that waits.
/// @param server IPv4 address of the name server to ask instead of the configured ones, and its port; NULL for those.
/// @return how many there are (at most `room` are stored), 0 also for a name that does not exist; -1 when nobody answered, -2 for nonsense.
int qd_services(const char *name, const char *server, uint16_t port, qd_service *services, int room);
