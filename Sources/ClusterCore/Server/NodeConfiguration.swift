import Base
import Crypto
import Replica

/// A URL that a node listens on or tells others: scheme, host and port.
public struct NodeURL: Hashable, Sendable, CustomStringConvertible {
    public var scheme: String
    public var host: String
    public var port: Int

    public init(scheme: String = "http", host: String, port: Int) {
        self.scheme = scheme
        self.host = host
        self.port = port
    }

    /// - Throws: `NodeError.configuration` with the offending text.
    public init(parsing text: String) throws(NodeError) {
        guard let separator = text.range(of: "://") else {
            throw .configuration("\"\(text)\" is not a URL: write it as http://HOST:PORT")
        }
        let scheme = String(text[..<separator.lowerBound])
        guard scheme == "http" || scheme == "https" else {
            throw .configuration("\"\(text)\" has the scheme \"\(scheme)\": http and https are supported")
        }
        var rest = text[separator.upperBound...]
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        guard let colon = rest.lastIndex(of: ":"), let port = Int(rest[rest.index(after: colon)...]), (0...65535).contains(port) else {
            throw .configuration("\"\(text)\" names no port: write it as \(scheme)://HOST:PORT")
        }
        var host = String(rest[..<colon])
        if host.hasPrefix("[") && host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        guard !host.isEmpty, !host.contains("/") else {
            throw .configuration("\"\(text)\" names no host, or a path: write it as \(scheme)://HOST:PORT")
        }
        self.init(scheme: scheme, host: host, port: port)
    }

    /// A comma-separated list.
    public static func list(parsing text: String) throws(NodeError) -> [NodeURL] {
        var urls: [NodeURL] = []
        for part in text.split(separator: ",") { urls.append(try NodeURL(parsing: String(part))) }
        guard !urls.isEmpty else { throw .configuration("an empty list of URLs was given") }
        return urls
    }

    public var description: String { "\(scheme)://\(host.contains(":") ? "[\(host)]" : host):\(port)" }
    public var authority: String { "\(host.contains(":") ? "[\(host)]" : host):\(port)" }
}

extension NodeURL {
    /// The peer URLs of a member to be added, sorted; nil when they are none. (etcd, types.NewURLs)
    static func peerURLs(_ texts: [String]) -> [String]? {
        guard !texts.isEmpty else { return nil }
        var urls: [String] = []
        for text in texts {
            var text = text[...]
            while let first = text.first, first.isWhitespace { text.removeFirst() }
            while let last = text.last, last.isWhitespace { text.removeLast() }
            guard let separator = String(text).range(of: "://") else { return nil }
            let scheme = text[..<separator.lowerBound]
            let host = text[separator.upperBound...]
            guard ["http", "https", "unix", "unixs"].contains(scheme), !host.contains("/"), let colon = host.lastIndex(of: ":"),
                  host[..<colon].allSatisfy({ $0 != ":" }) || (host.first == "[" && host[..<colon].last == "]") else { return nil }
            urls.append(String(text))
        }
        return urls.sorted()
    }
}

extension String {
    func range(of needle: String) -> Range<String.Index>? {
        var at = startIndex
        while at < endIndex {
            if self[at...].hasPrefix(needle) { return at..<index(at, offsetBy: needle.count) }
            at = index(after: at)
        }
        return nil
    }
}

/// What a node is told at its start. Names and defaults are etcd's.
public struct NodeConfiguration: Sendable {
    public var name = "default"
    /// Empty: `NAME.etcd` in the working directory.
    public var dataDirectory = ""
    /// Of the log. Empty: below the data directory.
    public var logDirectory = ""
    public var listenClientURLs = [NodeURL(host: "localhost", port: 2379)]
    public var advertiseClientURLs = [NodeURL(host: "localhost", port: 2379)]
    /// Ports for the HTTP endpoints alone; if there are any, `listenClientURLs` serve gRPC alone.
    public var listenClientHTTPURLs: [NodeURL] = []
    /// Who may use the HTTP endpoints.
    public var http = HTTPAccess()
    /// Ports for metrics and health alone.
    public var listenMetricsURLs: [NodeURL] = []
    public var listenPeerURLs = [NodeURL(host: "localhost", port: 2380)]
    public var initialAdvertisePeerURLs = [NodeURL(host: "localhost", port: 2380)]
    /// Empty: this member alone.
    public var initialCluster: [(name: String, url: NodeURL)] = []
    public var initialClusterToken = "etcd-cluster"
    public var isExistingCluster = false
    /// Start from the data of this member alone: everybody else is out of the cluster.
    public var forcesNewCluster = false
    /// How logins are answered: `simple`, or `jwt,...` with its options. (`AuthDesk`)
    public var authToken = "simple"
    public var bcryptCost = 10
    public var autoCompaction = AutoCompaction.off
    public var tls = NodeTLS()
    /// A member that is its cluster's only voter leads at once instead of after an election timeout.
    public var advancesFirstElection = true
    /// Ports may be shared with sockets that allow it too. (SO_REUSEPORT)
    public var sharesPorts = false
    /// Verify every record of log and store before they are used.
    public var checksFilesFirst = false
    /// Applying what was committed at once may take so long; more is logged and counted.
    public var slowApply = TimeSpan.milliseconds(100)
    /// False: the store does not wait for the device. The log's part of it is the environment's disk.
    public var syncsStore = true
    /// What clients may do to the node.
    public var clientBounds = ClientBounds()
    /// Timing, bounds and quota; name and client URLs are filled in by the node.
    public var options = ReplicaOptions()
    public init() {}

    /// `name=url[,name=url...]`; a name may repeat for several URLs.
    public static func parseInitialCluster(_ text: String) throws(NodeError) -> [(name: String, url: NodeURL)] {
        var members: [(name: String, url: NodeURL)] = []
        for part in text.split(separator: ",") {
            guard let equals = part.firstIndex(of: "="), equals > part.startIndex else {
                throw .configuration("\"\(part)\" in --initial-cluster is not NAME=URL")
            }
            members.append((String(part[..<equals]), try NodeURL(parsing: String(part[part.index(after: equals)...]))))
        }
        return members
    }

    var effectiveDataDirectory: String { dataDirectory.isEmpty ? "\(name).etcd" : dataDirectory }
    /// nil: below the data directory.
    var separateLogDirectory: String? {
        var directory = logDirectory
        while directory.count > 1, directory.hasSuffix("/") { directory.removeLast() }
        return directory.isEmpty || directory == MemberFiles.logDirectory(in: effectiveDataDirectory) ? nil : directory
    }

    /// The members that the cluster starts with, by etcd's rules, and which of them this one is.
    func initialMembers() throws(NodeError) -> (members: [Member], own: MemberID) {
        let cluster = initialCluster.isEmpty ? initialAdvertisePeerURLs.map { (name: name, url: $0) } : initialCluster
        var names: [String] = []
        for member in cluster where !names.contains(member.name) { names.append(member.name) }
        guard names.contains(name) else {
            throw .configuration("--initial-cluster does not name \"\(name)\": it must contain \(name)=\(initialAdvertisePeerURLs.first?.description ?? "URL")")
        }
        var members: [Member] = []
        var own = MemberID.none
        for each in names {
            let urls = cluster.filter { $0.name == each }.map(\.url.description).sorted()
            let id = Identifiers.member(peerURLs: urls, token: initialClusterToken)
            if let twin = members.first(where: { $0.id == id }) {
                throw .configuration("--initial-cluster gives \(each) and \(twin.name) the same peer URLs")
            }
            // Members are unnamed until they have started and said so; the order of URLs is the canonical one.
            members.append(Member(id: id, peerURLs: urls))
            if each == name {
                own = id
                let advertised = initialAdvertisePeerURLs.map(\.description).sorted()
                guard advertised == urls else {
                    throw .configuration("--initial-cluster says \(name)=\(urls.joined(separator: ",")) but --initial-advertise-peer-urls says "
                        + "\(advertised.joined(separator: ",")): they must agree")
                }
            }
        }
        return (members, own)
    }

    func validate() throws(NodeError) {
        guard options.raft.heartbeatInterval > .zero else { throw .configuration("--heartbeat-interval must be above 0") }
        guard options.raft.electionTimeout >= options.raft.heartbeatInterval * 5 else {
            throw .configuration("--election-timeout (\(options.raft.electionTimeout.milliseconds) ms) must be at least 5 times "
                + "--heartbeat-interval (\(options.raft.heartbeatInterval.milliseconds) ms)")
        }
        guard options.raft.electionTimeout <= .seconds(50) else { throw .configuration("--election-timeout must be at most 50000 ms") }
        guard options.maxTxnOps > 0 else { throw .configuration("--max-txn-ops must be above 0") }
        guard options.maxRequestBytes > 0 else { throw .configuration("--max-request-bytes must be above 0") }
        guard separateLogDirectory == nil || separateLogDirectory != effectiveDataDirectory else {
            throw .configuration("--wal-dir must be a directory of its own, not --data-dir itself")
        }
        if let url = listenClientHTTPURLs.first(where: { url in listenClientURLs.contains { $0.authority == url.authority } }) {
            throw .configuration("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url \(url): give one of them another port")
        }
        try tls.validate(clientURLs: listenClientURLs + listenClientHTTPURLs + listenMetricsURLs, peerURLs: listenPeerURLs)
    }
}

/// How members and clusters get their numbers. (shared/reference/etcd-storage.md §5)
public enum Identifiers {
    public static func member(peerURLs: [String], token: String) -> MemberID {
        MemberID(first8(of: Array(peerURLs.sorted().joined().utf8) + Array(token.utf8)))
    }
    public static func cluster(members: [MemberID]) -> ClusterID {
        var writer = ByteWriter(capacity: members.count * 8)
        for id in members.sorted() { writer.writeBigEndian(id.rawValue) }
        return ClusterID(first8(of: writer.bytes))
    }
    private static func first8(of bytes: [UInt8]) -> UInt64 {
        Insecure.SHA1.hash(data: bytes).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }
}

/// Why a node did not start or had to stop: one line that says what to do.
public enum NodeError: Error, Sendable, CustomStringConvertible {
    case configuration(String)
    case portInUse(String)
    case listen(String, reason: String)
    case dataDirectory(String)
    /// The member was removed from its cluster.
    case removed
    /// Something failed that leaves no safe way on.
    case stopped(String)

    public var description: String {
        switch self {
        case .configuration(let text), .dataDirectory(let text), .stopped(let text): text
        case .removed: "the member has been permanently removed from the cluster; the data-dir used by this member must be removed"
        case .portInUse(let address): "\(address) is already in use: stop the program that uses it, or choose another port"
        case .listen(let address, let reason): "cannot listen on \(address): \(reason)"
        }
    }
}
