import CResolver
import Foundation
import Server

/// `--discovery-srv`: the first members stand in the DNS, as SRV records of `_etcd-server-ssl._tcp.DOMAIN` and `_etcd-server._tcp.DOMAIN`.
struct RecordDiscovery: Hashable, Sendable {
    struct Record: Hashable, Sendable {
        /// Without the final dot.
        var host: String
        var port: Int
    }

    var domain: String
    /// `--discovery-srv-name`: a part of the service's name. Empty: none.
    var serviceName = ""
    /// IPv4 address and port of the name server to ask; nil: those of the system.
    var server: Record?

    /// The first members, in the order of the records; https before http. Blocks while name servers are asked.
    /// - Parameter own: this member's advertised URLs, none of them empty.
    /// - Throws: when no record leads to this member, in etcd's words.
    func members(name: String, own: [NodeURL]) throws(CommandFailure) -> [(name: String, url: NodeURL)] {
        var found: [(name: String, url: NodeURL)] = []
        var problems: [String] = []
        for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
            let service = serviceName.isEmpty ? service : service + "-" + serviceName
            let (members, problem) = RecordDiscovery.members(of: try records(service), scheme: scheme, service: service, name: name, own: own, addresses: RecordDiscovery.addresses)
            found += members
            if let problem { problems.append(problem) }
        }
        guard !found.isEmpty else {
            throw CommandFailure(description: "error querying DNS SRV records for \(domain): \(problems.isEmpty ? "there are none" : problems.joined(separator: "; "))")
        }
        guard found.contains(where: { $0.name == name }) else { throw CommandFailure(description: "cannot find local etcd member \"\(name)\" in SRV records") }
        return found
    }

    /// Of one service: whoever has an address of `own` is called `name`, the others by numbers. A record of this member under the other scheme is a
    /// problem and no member.
    static func members(of records: [Record], scheme: String, service: String, name: String, own: [NodeURL], addresses: (String) -> Set<String>)
        -> (members: [(name: String, url: NodeURL)], problem: String?) {
        var members: [(name: String, url: NodeURL)] = []
        var problem: String?
        var next = 0
        for record in records {
            let here = addresses(record.host)
            let mine = own.first { $0.port == record.port && !addresses($0.host).isDisjoint(with: here) }
            if here.isEmpty {
                problem = "\(record.host) of _\(service) has no address"
            } else if let mine, mine.scheme != scheme {
                problem = "bootstrap at \(scheme)://\(record.host):\(record.port) from DNS for \(service) has scheme mismatch with expected peer \(mine)"
            } else {
                if mine == nil { next += 1 }
                members.append((mine == nil ? "\(next - 1)" : name, NodeURL(scheme: scheme, host: record.host, port: record.port)))
            }
        }
        return (members, problem)
    }

    private static let mostRecords = 256

    private func records(_ service: String) throws(CommandFailure) -> [Record] {
        let name = "_\(service)._tcp.\(domain)"
        var services = [qd_service](repeating: qd_service(), count: RecordDiscovery.mostRecords)
        let count = Int(qd_services(name, server?.host, UInt16(server?.port ?? 0), &services, Int32(services.count)))
        guard count >= 0 else {
            throw CommandFailure(description: "error querying DNS SRV records for \(name): \(count == -1 ? "no name server answered" : "the answer makes no sense")")
        }
        return services.prefix(count).map { service in
            Record(host: withUnsafeBytes(of: service.target) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }, port: Int(service.port))
        }
    }

    /// As numbers; none for a name that nobody knows.
    static func addresses(_ host: String) -> Set<String> {
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, nil, nil, &list) == 0 else { return [] }
        defer { freeaddrinfo(list) }
        var found: Set<String> = []
        var next = list
        while let info = next {
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            if getnameinfo(info.pointee.ai_addr, info.pointee.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0 {
                found.insert(String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
            }
            next = info.pointee.ai_next
        }
        return found
    }
}
