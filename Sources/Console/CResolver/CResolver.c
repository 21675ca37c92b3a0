#include "CResolver.h"
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <string.h>

/// The longest answer over TCP.
enum { longest_answer = 65535 };

static int parse(const unsigned char *answer, int length, qd_service *services, int room) {
    ns_msg message;
    if (ns_initparse(answer, length, &message) != 0) return -2;
    int found = 0;
    for (int i = 0; i < ns_msg_count(message, ns_s_an); i++) {
        ns_rr record;
        if (ns_parserr(&message, ns_s_an, i, &record) != 0) return -2;
        if (ns_rr_type(record) != ns_t_srv || ns_rr_rdlen(record) < 7) continue;
        qd_service service;
        const unsigned char *data = ns_rr_rdata(record);
        service.priority = ns_get16(data);
        service.weight = ns_get16(data + 2);
        service.port = ns_get16(data + 4);
        if (dn_expand(ns_msg_base(message), ns_msg_end(message), data + 6, service.target, sizeof service.target) < 0) return -2;
        if (found < room) services[found] = service;
        found++;
    }
    return found;
}

int qd_services(const char *name, const char *server, uint16_t port, qd_service *services, int room) {
    static _Thread_local unsigned char answer[longest_answer];
    struct __res_state state;
    memset(&state, 0, sizeof state);
    if (res_ninit(&state) != 0) return -1;
    if (server) {
        state.nscount = 1;
        state.nsaddr_list[0].sin_family = AF_INET;
        state.nsaddr_list[0].sin_port = htons(port);
        if (inet_pton(AF_INET, server, &state.nsaddr_list[0].sin_addr) != 1) {
            res_nclose(&state);
            return -1;
        }
    }
    int length = res_nquery(&state, name, ns_c_in, ns_t_srv, answer, sizeof answer);
    int failure = state.res_h_errno;
    res_nclose(&state);
    if (length < 0) return failure == HOST_NOT_FOUND || failure == NO_DATA ? 0 : -1;
    return parse(answer, length < (int)sizeof answer ? length : (int)sizeof answer, services, room);
}
