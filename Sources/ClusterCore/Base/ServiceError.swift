/// The gRPC status codes (grpc.io/docs/guides/status-codes).
public enum StatusCode: UInt8, Hashable, Sendable, CaseIterable {
    case ok = 0
    case canceled = 1
    case unknown = 2
    case invalidArgument = 3
    case deadlineExceeded = 4
    case notFound = 5
    case alreadyExists = 6
    case permissionDenied = 7
    case resourceExhausted = 8
    case failedPrecondition = 9
    case aborted = 10
    case outOfRange = 11
    case unimplemented = 12
    case `internal` = 13
    case unavailable = 14
    case dataLoss = 15
    case unauthenticated = 16

    /// The name that metrics carry ("OK", "InvalidArgument", ...).
    public var metricName: String {
        switch self {
        case .ok: "OK"
        case .canceled: "Canceled"
        case .unknown: "Unknown"
        case .invalidArgument: "InvalidArgument"
        case .deadlineExceeded: "DeadlineExceeded"
        case .notFound: "NotFound"
        case .alreadyExists: "AlreadyExists"
        case .permissionDenied: "PermissionDenied"
        case .resourceExhausted: "ResourceExhausted"
        case .failedPrecondition: "FailedPrecondition"
        case .aborted: "Aborted"
        case .outOfRange: "OutOfRange"
        case .unimplemented: "Unimplemented"
        case .`internal`: "Internal"
        case .unavailable: "Unavailable"
        case .dataLoss: "DataLoss"
        case .unauthenticated: "Unauthenticated"
        }
    }
}

/// A failure that a client sees: code and exact text are part of etcd's contract, since its clients match on the text.
/// (etcd api/v3rpc/rpctypes/error.go; shared/reference/etcd-api.md §13)
public struct ServiceError: Error, Hashable, Sendable, CustomStringConvertible {
    public var code: StatusCode
    public var message: String
    public init(_ code: StatusCode, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { "\(message) (\(code.metricName))" }
}

extension ServiceError {
    public static let emptyKey = ServiceError(.invalidArgument, "etcdserver: key is not provided")
    public static let keyNotFound = ServiceError(.invalidArgument, "etcdserver: key not found")
    public static let valueProvided = ServiceError(.invalidArgument, "etcdserver: value is provided")
    public static let leaseProvided = ServiceError(.invalidArgument, "etcdserver: lease is provided")
    public static let tooManyOps = ServiceError(.invalidArgument, "etcdserver: too many operations in txn request")
    public static let duplicateKey = ServiceError(.invalidArgument, "etcdserver: duplicate key given in txn request")
    public static let invalidClientAPIVersion = ServiceError(.invalidArgument, "etcdserver: invalid client api version")
    public static let invalidSortOption = ServiceError(.invalidArgument, "etcdserver: invalid sort option")
    public static let compacted = ServiceError(.outOfRange, "etcdserver: mvcc: required revision has been compacted")
    public static let futureRev = ServiceError(.outOfRange, "etcdserver: mvcc: required revision is a future revision")
    public static let noSpace = ServiceError(.resourceExhausted, "etcdserver: mvcc: database space exceeded")
    public static let leaseNotFound = ServiceError(.notFound, "etcdserver: requested lease not found")
    public static let leaseExist = ServiceError(.failedPrecondition, "etcdserver: lease already exists")
    public static let leaseTTLTooLarge = ServiceError(.outOfRange, "etcdserver: too large lease TTL")
    public static let watchCanceled = ServiceError(.canceled, "etcdserver: watch canceled")
    public static let memberExist = ServiceError(.failedPrecondition, "etcdserver: member ID already exist")
    public static let peerURLExist = ServiceError(.failedPrecondition, "etcdserver: Peer URLs already exists")
    public static let memberNotEnoughStarted = ServiceError(.failedPrecondition, "etcdserver: re-configuration failed due to not enough started members")
    public static let memberBadURLs = ServiceError(.invalidArgument, "etcdserver: given member URLs are invalid")
    public static let memberNotFound = ServiceError(.notFound, "etcdserver: member not found")
    public static let memberNotLearner = ServiceError(.failedPrecondition, "etcdserver: can only promote a learner member")
    public static let learnerNotReady = ServiceError(.failedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
    public static let tooManyLearners = ServiceError(.failedPrecondition, "etcdserver: too many learner members in cluster")
    public static let clusterIdMismatch = ServiceError(.failedPrecondition, "etcdserver: cluster ID mismatch")
    public static let requestTooLarge = ServiceError(.invalidArgument, "etcdserver: request is too large")
    public static let requestTooManyRequests = ServiceError(.resourceExhausted, "etcdserver: too many requests")
    public static let rootUserNotExist = ServiceError(.failedPrecondition, "etcdserver: root user does not exist")
    public static let rootRoleNotExist = ServiceError(.failedPrecondition, "etcdserver: root user does not have root role")
    public static let userAlreadyExist = ServiceError(.failedPrecondition, "etcdserver: user name already exists")
    public static let userEmpty = ServiceError(.invalidArgument, "etcdserver: user name is empty")
    public static let userNotFound = ServiceError(.failedPrecondition, "etcdserver: user name not found")
    public static let roleAlreadyExist = ServiceError(.failedPrecondition, "etcdserver: role name already exists")
    public static let roleNotFound = ServiceError(.failedPrecondition, "etcdserver: role name not found")
    public static let roleEmpty = ServiceError(.invalidArgument, "etcdserver: role name is empty")
    public static let authFailed = ServiceError(.invalidArgument, "etcdserver: authentication failed, invalid user ID or password")
    public static let permissionNotGiven = ServiceError(.invalidArgument, "etcdserver: permission not given")
    public static let permissionDenied = ServiceError(.permissionDenied, "etcdserver: permission denied")
    public static let roleNotGranted = ServiceError(.failedPrecondition, "etcdserver: role is not granted to the user")
    public static let permissionNotGranted = ServiceError(.failedPrecondition, "etcdserver: permission is not granted to the role")
    public static let authNotEnabled = ServiceError(.failedPrecondition, "etcdserver: authentication is not enabled")
    public static let invalidAuthToken = ServiceError(.unauthenticated, "etcdserver: invalid auth token")
    public static let invalidAuthMgmt = ServiceError(.invalidArgument, "etcdserver: invalid auth management")
    public static let authOldRevision = ServiceError(.invalidArgument, "etcdserver: revision of auth store is old")
    public static let noLeader = ServiceError(.unavailable, "etcdserver: no leader")
    public static let notLeader = ServiceError(.failedPrecondition, "etcdserver: not leader")
    public static let leaderChanged = ServiceError(.unavailable, "etcdserver: leader changed")
    public static let notCapable = ServiceError(.unavailable, "etcdserver: not capable")
    public static let stopped = ServiceError(.unavailable, "etcdserver: server stopped")
    public static let timeout = ServiceError(.unavailable, "etcdserver: request timed out")
    public static let timeoutDueToLeaderFail = ServiceError(.unavailable, "etcdserver: request timed out, possibly due to previous leader failure")
    public static let timeoutDueToConnectionLost = ServiceError(.unavailable, "etcdserver: request timed out, possibly due to connection lost")
    public static let timeoutWaitAppliedIndex = ServiceError(.unavailable, "etcdserver: request timed out, waiting for the applied index took too long")
    public static let unhealthy = ServiceError(.unavailable, "etcdserver: unhealthy cluster")
    public static let corrupt = ServiceError(.dataLoss, "etcdserver: corrupt cluster")
    public static let notSupportedForLearner = ServiceError(.unavailable, "etcdserver: rpc not supported for learner")
    public static let badLeaderTransferee = ServiceError(.failedPrecondition, "etcdserver: bad leader transferee")
    public static let clusterVersionUnavailable = ServiceError(.unavailable, "etcdserver: cluster version not found during downgrade")
    public static let wrongDowngradeVersionFormat = ServiceError(.invalidArgument, "etcdserver: wrong downgrade target version format")
    public static let invalidDowngradeTargetVersion = ServiceError(.invalidArgument, "etcdserver: invalid downgrade target version")
    public static let downgradeInProcess = ServiceError(.failedPrecondition, "etcdserver: cluster has a downgrade job in progress")
    public static let noInflightDowngrade = ServiceError(.failedPrecondition, "etcdserver: no inflight downgrade job")
    public static let canceled = ServiceError(.canceled, "etcdserver: request canceled")
    public static let deadlineExceeded = ServiceError(.deadlineExceeded, "etcdserver: context deadline exceeded")
}

// Texts that etcd sends without a mapped code.
extension ServiceError {
    public static let leaderTransferTimeout = ServiceError(.unknown, "etcdserver: request timed out, leader transfer took too long")
    public static let notPrimaryLessor = ServiceError(.unknown, "not a primary lessor")
    public static let unknownMethod = ServiceError(.unknown, "etcdserver: unknown method")
    public static let missingLeaderKey = ServiceError(.unknown, "\"leader\" field must be provided")
    public static let electionNotLeader = ServiceError(.unknown, "election: not leader")
    public static let electionNoLeader = ServiceError(.unknown, "election: no leader")
    public static let lockSessionExpired = ServiceError(.unknown, "mutex: session is expired")
    /// Ours: etcd's store takes names of up to 32 KiB, and dies of longer ones.
    public static let nameTooLong = ServiceError(.invalidArgument, "etcdserver: name of a user or role is longer than 511 bytes")
    /// Ours: such a name makes every list that it is in unreadable for clients that take the API's definition at its word.
    public static let nameIsNoText = ServiceError(.invalidArgument, "etcdserver: name of a user or role is not UTF-8")
    /// Ours: a real etcd calls such a candidate elected.
    public static let electionSessionExpired = ServiceError(.unknown, "election: session is expired")
}
