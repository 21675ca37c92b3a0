import Base

/// What a call of the client library fails with, apart from `CancellationError` when its task was cancelled.
public enum EtcdError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The server answered with an error. `ServiceError` has a constant for each of etcd's texts.
    case service(ServiceError)
    /// No answer: the endpoint could not be reached or the connection broke. A write may or may not have happened, unless
    /// `wasSent` is false.
    case transport(endpoint: String, reason: String, wasSent: Bool)
    /// The time limit passed. `last` is what went wrong on the way, if anything did.
    case deadlineExceeded(last: String?)
    /// A watch needs revisions that have been compacted; the argument is the oldest one that can still be watched from.
    case compacted(Revision)
    /// The server ended a watch, with its reason.
    case watchCanceled(String)
    /// The lease ran out or was revoked.
    case leaseExpired(LeaseID)
    /// The client was closed.
    case closed
    /// The server's bytes make no sense.
    case malformedResponse(String)
    /// An endpoint or a TLS file cannot be used.
    case configuration(String)

    public var description: String {
        switch self {
        case .service(let error): error.message
        case .transport(let endpoint, let reason, _): "\(endpoint): \(reason)"
        case .deadlineExceeded(let last): last.map { "time limit passed; last: \($0)" } ?? "time limit passed"
        case .compacted(let revision): "\(ServiceError.compacted.message) (oldest: \(revision.rawValue))"
        case .watchCanceled(let reason): reason.isEmpty ? "watch ended by the server" : reason
        case .leaseExpired(let id): "lease \(String(id.rawValue, radix: 16)) expired"
        case .closed: "client closed"
        case .malformedResponse(let detail): "malformed response: \(detail)"
        case .configuration(let detail): detail
        }
    }

    /// True when the server does not have the method that was called: another program, an older version.
    public var isUnimplemented: Bool {
        if case .service(let error) = self { error.code == .unimplemented } else { false }
    }

    /// True for a server's answer with exactly this error's text. (Clients of etcd compare texts, not codes.)
    public func isService(_ error: ServiceError) -> Bool {
        if case .service(let own) = self { own.message == error.message } else { false }
    }
}
