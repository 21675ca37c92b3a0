import Base
import Logging
import NIOCore

/// One server of a cluster, as given: `host:port`, `http://host:port`, `https://host:port`, `unix:///path`.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    public enum Address: Hashable, Sendable {
        case tcp(host: String, port: Int)
        case unix(path: String)
    }

    /// As the user wrote it.
    public let text: String
    public let address: Address
    /// nil when the text has no scheme: then the client's TLS settings decide.
    public let isTLS: Bool?

    public var description: String { text }

    /// Throws `EtcdError.configuration` when the text is not an endpoint. A missing port means 2379.
    public init(_ text: String) throws(EtcdError) {
        self.text = text
        var rest = Substring(text)
        var tls: Bool?
        if let range = rest.firstRange(of: "://") {
            switch rest[..<range.lowerBound] {
            case "http": tls = false
            case "https": tls = true
            case "unix", "unixs":
                address = .unix(path: String(rest[range.upperBound...]))
                isTLS = rest[..<range.lowerBound] == "unixs"
                guard range.upperBound < rest.endIndex else { throw .configuration("endpoint without a path: \(text)") }
                return
            default: throw .configuration("endpoint with an unknown scheme: \(text)")
            }
            rest = rest[range.upperBound...]
        }
        isTLS = tls
        if let slash = rest.firstIndex(of: "/") { rest = rest[..<slash] }
        var host = rest
        var port = 2379
        if let colon = rest.lastIndex(of: ":"), !(rest.hasPrefix("[") && rest.hasSuffix("]")),
           rest.hasPrefix("[") || rest.firstIndex(of: ":") == colon {
            guard let number = Int(rest[rest.index(after: colon)...]), number > 0, number < 65_536 else {
                throw .configuration("endpoint with a bad port: \(text)")
            }
            port = number
            host = rest[..<colon]
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else { throw .configuration("endpoint without a host: \(text)") }
        address = .tcp(host: String(host), port: port)
    }

    /// The `:authority` of calls to this endpoint.
    var authority: String {
        switch address {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix: "localhost"
        }
    }
}

/// How a client finds, reaches and treats a cluster.
public struct ClientConfiguration: Sendable {
    public struct TLS: Sendable, Hashable {
        /// PEM file of authorities to trust; nil: the system's.
        public var caFile: String?
        /// PEM files that the client shows.
        public var certificateFile: String?
        public var keyFile: String?
        /// Name to expect in the server's certificate; nil: the endpoint's host.
        public var serverName: String?
        /// Accept any certificate.
        public var skipsVerification = false
        public init(caFile: String? = nil, certificateFile: String? = nil, keyFile: String? = nil, serverName: String? = nil,
                    skipsVerification: Bool = false) {
            self.caFile = caFile
            self.certificateFile = certificateFile
            self.keyFile = keyFile
            self.serverName = serverName
            self.skipsVerification = skipsVerification
        }
    }

    public enum Balancing: Sendable, Hashable {
        /// One endpoint for everything until it fails.
        case sticky
        /// Each call to the next healthy endpoint.
        case roundRobin
    }

    public var endpoints: [Endpoint]
    /// Both set: calls carry a token got with Authenticate.
    public var user: String?
    public var password: String?
    /// nil: TLS only for `https` endpoints, with the system's authorities. Not nil: also for endpoints without a scheme.
    public var tls: TLS?
    public var balancing: Balancing = .sticky
    /// For TCP, TLS and the server's first frame together.
    public var dialTimeout: TimeSpan = .seconds(2)
    /// Limit for calls that do not name their own; covers retries.
    public var requestTimeout: TimeSpan = .seconds(5)
    /// A connection with open calls that was silent this long is probed. etcd punishes less than 5 s.
    public var keepAliveInterval: TimeSpan = .seconds(10)
    /// A probe unanswered this long ends the connection.
    public var keepAliveTimeout: TimeSpan = .seconds(5)
    /// Wait before a further attempt of a call, and before the first reconnect.
    public var minimumBackoff: TimeSpan = .milliseconds(25)
    /// The wait doubles up to this.
    public var maximumBackoff: TimeSpan = .seconds(2)
    /// Watch events that a reader has not taken: above this many bytes the server is made to wait.
    public var watchBufferBytes = 4 << 20
    public var logger = Logger(label: "quarterdeck.client") { _ in SwiftLogNoOpLogHandler() }

    public init(endpoints: [Endpoint]) { self.endpoints = endpoints }

    /// Endpoints as text, each one alone or several joined by commas.
    public init(_ endpoints: String...) throws(EtcdError) {
        var all: [Endpoint] = []
        for text in endpoints {
            for part in text.split(separator: ",") { all.append(try Endpoint(String(part))) }
        }
        self.endpoints = all
    }
}

/// Settings of one call.
public struct CallOptions: Sendable {
    /// nil: the client's `requestTimeout`.
    public var timeout: TimeSpan?
    /// Only this endpoint, and no second attempt.
    public var endpoint: Endpoint?
    /// Fail at once if the member that is asked knows no leader.
    public var requiresLeader = false
    /// Called once when a unary call has ended, on the client's loop and before the caller goes on: how many attempts it took.
    public var onAttempts: (@Sendable (Int) -> Void)?
    public init(timeout: TimeSpan? = nil, endpoint: Endpoint? = nil, requiresLeader: Bool = false, onAttempts: (@Sendable (Int) -> Void)? = nil) {
        self.timeout = timeout
        self.endpoint = endpoint
        self.requiresLeader = requiresLeader
        self.onAttempts = onAttempts
    }
}
