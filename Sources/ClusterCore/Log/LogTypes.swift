import Base
import Raft

/// Whose log it is: written into every segment, so that a directory copied or mounted by mistake is refused.
public struct LogIdentity: Hashable, Sendable, CustomStringConvertible {
    public var cluster: ClusterID
    public var member: MemberID
    public init(cluster: ClusterID, member: MemberID) {
        self.cluster = cluster
        self.member = member
    }
    public var description: String { "cluster \(cluster), member \(member)" }
}

/// How the log behaves.
public struct LogOptions: Sendable {
    /// A segment is preallocated with this many bytes; a larger batch gets a larger segment. 64 MB as in etcd: small enough
    /// that compaction frees space soon, large enough that starting a new one is rare.
    public var segmentSizeBytes = 64 << 20
    /// An operator's last resort: when the last batch of the last segment is unreadable and it does not look like a write
    /// that a crash interrupted, cut it anyway. It may have been acknowledged, so a lone member may lose data by this.
    public var cutsDamagedTail = false
    public init(segmentSizeBytes: Int = 64 << 20, cutsDamagedTail: Bool = false) {
        self.segmentSizeBytes = segmentSizeBytes
        self.cutsDamagedTail = cutsDamagedTail
    }
}

/// What was read back from the disk. All of it is durable.
public struct RecoveredLog: Sendable {
    public var hardState: HardState
    /// The log begins behind this position.
    public var start: LogPosition
    /// Consecutive, the first one at `start.index + 1`.
    public var entries: [Entry]
    /// Present when an interrupted write was cut off.
    public var repair: TailRepair?
    /// Segment files in use.
    public var segmentCount: Int
    /// Bytes of records read.
    public var bytesRead: Int

    public init(hardState: HardState, start: LogPosition, entries: [Entry], repair: TailRepair? = nil, segmentCount: Int = 1, bytesRead: Int = 0) {
        self.hardState = hardState
        self.start = start
        self.entries = entries
        self.repair = repair
        self.segmentCount = segmentCount
        self.bytesRead = bytesRead
    }
    public var last: LogPosition {
        entries.last.map { LogPosition(index: $0.index, term: $0.term) } ?? start
    }
}

/// A write that a crash interrupted was cut off the end of the log. It was never acknowledged: a batch counts only after
/// its sync, and the log cannot hold a later one then.
public struct TailRepair: Hashable, Sendable, CustomStringConvertible {
    /// Path of the segment file.
    public var segment: String
    /// Where the cut was made.
    public var offset: UInt64
    /// Bytes between the cut and the last one that was not zero.
    public var bytesCut: UInt64
    /// What was wrong.
    public var detail: String
    public init(segment: String, offset: UInt64, bytesCut: UInt64, detail: String) {
        self.segment = segment
        self.offset = offset
        self.bytesCut = bytesCut
        self.detail = detail
    }
    public var description: String {
        "cut an unfinished write of \(bytesCut) bytes off the log (\(segment) at \(offset)): \(detail)"
    }
}

/// Counters since the log was opened.
public struct LogStatistics: Hashable, Sendable {
    public var bytesWritten: UInt64 = 0
    public var records: UInt64 = 0
    public var syncs: UInt64 = 0
    /// Bytes and records that the latest `sync` wrote.
    public var lastSyncBytes = 0
    public var lastSyncRecords = 0
    public var segmentsStarted: UInt64 = 0
    public var segmentsRemoved: UInt64 = 0
    public init() {}
}

/// Why the log cannot be used.
public enum LogError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Nothing to open in this directory.
    case missing(directory: String)
    /// `create` found a log.
    case alreadyExists(directory: String)
    /// Bytes that were durable once are wrong now, or a file is gone.
    case damaged(segment: String, offset: UInt64, detail: String)
    /// The log of another cluster or member.
    case foreign(segment: String, expected: LogIdentity, found: LogIdentity)
    /// Intact, but written in a format that this program does not know.
    case unsupported(segment: String, offset: UInt64, version: UInt8)
    /// A call to the file system failed. Final: whether earlier writes reached the disk is not known any more.
    case disk(DiskError)
    /// An earlier failure stopped this log.
    case stopped

    public var description: String {
        switch self {
        case .missing(let directory):
            "no log in \(directory): check the data directory, or start this member as a new one"
        case .alreadyExists(let directory):
            "\(directory) holds a log already: choose another data directory, or remove the old one"
        case .damaged(let segment, let offset, let detail):
            "log damaged in \(segment) at offset \(offset): \(detail); remove this member from the cluster, clear its data directory and add it again, or restore a snapshot"
        case .foreign(let segment, let expected, let found):
            "\(segment) belongs to \(found), but this is \(expected): point this member at its own data directory"
        case .unsupported(let segment, let offset, let version):
            "\(segment) at offset \(offset) has record format \(version), which this version cannot read: start a newer version"
        case .disk(let error):
            error.code == LogError.noSpaceCode
                ? "\(error): free space on this file system and start the member again"
                : "\(error): check the device and start the member again; the log is read back from the disk then"
        case .stopped:
            "the log stopped after an earlier failure: start the member again"
        }
    }
    /// ENOSPC on Linux and macOS.
    static let noSpaceCode: Int32 = 28
}
