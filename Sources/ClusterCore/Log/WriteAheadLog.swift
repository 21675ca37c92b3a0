import Base
import Raft

/// The member's write-ahead log: hard state and entries in a row of segment files.
///
/// Batches are collected with `append` and made durable together with `sync`: one write, one fdatasync, everything or
/// nothing. A batch is written only after the one before is durable; recovery relies on it to tell an interrupted write
/// from damage. Confined to one thread, the disk thread.
public final class WriteAheadLog {
    public let directory: String
    public let identity: LogIdentity
    public private(set) var statistics = LogStatistics()

    let disk: any Disk
    let options: LogOptions
    private var shape: LogShape
    private var active: ActiveSegment
    var segmentInUse: ActiveSegment { active }
    private let buffer = RecordBuffer()
    /// For the records around a batch (trailer, segment header), so that the batch itself stays as it is.
    private let frame = RecordBuffer(capacity: 4096)
    /// The highest index among the buffered entries.
    private var pendingLast: LogIndex?
    /// What is durable: what a new segment's header says. `shape` is ahead of it by the buffered records.
    private var durable: SegmentBase
    private var state = State.open

    private enum State { case open, failed, closed }

    /// The segment being written.
    struct ActiveSegment {
        var number: UInt64
        var file: any DiskFile
        var capacity: UInt64
        var offset: UInt64
        /// Seed of the records' header checksums: the segment header's own.
        var seed: UInt32
        var chain: RecordChain
        /// The latest batch written.
        var batch: UInt64
        /// Nothing but the segment header in it.
        var isFresh: Bool
    }

    /// What a segment header repeats.
    struct SegmentBase: Equatable {
        var hardState: HardState
        var start: LogPosition
        var last: LogPosition
    }

    init(directory: String, disk: any Disk, identity: LogIdentity, options: LogOptions, shape: LogShape, active: ActiveSegment) {
        self.directory = directory
        self.disk = disk
        self.identity = identity
        self.options = options
        self.shape = shape
        self.active = active
        durable = SegmentBase(hardState: shape.hardState, start: shape.start, last: shape.last)
    }

    // MARK: State

    /// As of the latest `append`, durable or not.
    public var hardState: HardState { shape.hardState }
    public var start: LogPosition { shape.start }
    public var last: LogPosition { shape.last }
    public var segmentCount: Int { shape.segments.count }
    /// Bytes that the next `sync` will write.
    public var pendingBytes: Int { buffer.count }
    public var isStopped: Bool { state != .open }

    // MARK: Writing

    /// Encodes a batch behind those already waiting. Nothing is durable before `sync`. Cheap: about 0.14 us an entry of 300 bytes.
    public func append(_ batch: PersistBatch) {
        guard state == .open else { return }  // sync reports it
        if let hardState = batch.hardState {
            precondition(hardState.term >= shape.hardState.term,
                         "term goes back from \(shape.hardState.term.rawValue) to \(hardState.term.rawValue)")
            buffer.append(hardState)
            shape.hardState = hardState
        }
        if let position = batch.reset {
            buffer.append(.reset, position)
            shape.reset(to: position)
            pendingLast = nil
        }
        for entry in batch.entries {
            if let objection = shape.objection(to: entry.index, term: entry.term) { preconditionFailure("log batch refused: \(objection)") }
            buffer.append(entry)
            shape.append(entry.index, entry.term)
        }
        if !batch.entries.isEmpty { pendingLast = shape.last.index }
    }

    /// Makes everything appended so far durable with one write and one sync; does nothing if nothing waits. The first
    /// failure is final: it is never retried, and every later call throws `.stopped`.
    public func sync() throws(LogError) {
        try whileOpen { () throws(DiskError) in
            guard !buffer.isEmpty else {
                statistics.lastSyncBytes = 0
                statistics.lastSyncRecords = 0
                return
            }
            // A fresh segment takes a batch of any size: the file grows.
            if !active.isFresh, active.offset + UInt64(buffer.count + RecordFormat.trailerRecordSize) > active.capacity {
                try roll(toHold: buffer.count)
            }
            try write(buffer)
            active.isFresh = false
            if let last = pendingLast { shape.segments[shape.segments.count - 1].lastLive = last }
            pendingLast = nil
            statistics.lastSyncBytes = buffer.count
            statistics.lastSyncRecords = buffer.records
            durable = SegmentBase(hardState: shape.hardState, start: shape.start, last: shape.last)
            buffer.removeAll()
        }
    }

    /// Removes the segments whose entries all lie at or before `index`, which must be durable in the store. Entries that
    /// share a segment with later ones stay. Syncs what waits. An index behind the last entry counts as the last one.
    /// Removing takes a while (60 ms for 64 MB on ext4 with discard); `releaseSegments` leaves that to another thread.
    public func compact(upTo index: LogIndex) throws(LogError) {
        let paths = try releaseSegments(upTo: index)
        try whileOpen { () throws(DiskError) in
            for path in paths { try disk.remove(path) }
        }
    }

    /// Like `compact`, but returns the paths of the files that are not needed any more instead of removing them. The caller
    /// removes them, on any thread, in any order, without syncing the directory: recovery takes any mix of removed and
    /// remaining files before the log's start, and removes what lies before a gap.
    public func releaseSegments(upTo index: LogIndex) throws(LogError) -> [String] {
        try sync()
        let index = min(index, shape.last.index)
        if index > shape.start.index, let term = shape.term(at: index) {
            var ahead = shape
            let position = LogPosition(index: index, term: term)
            ahead.advanceStart(to: position)
            if ahead.removableSegments > 0 {
                // Recovery must know that what is missing is in the store: first the new start, then the removal.
                buffer.append(.start, position)
                shape.advanceStart(to: position)
                if !planted(.releasesSegmentsBeforeStart) { try sync() }
            }
        }
        let removable = shape.removableSegments
        let paths = shape.segments.prefix(removable).map { path(ofSegment: $0.number) }
        shape.segments.removeFirst(removable)
        statistics.segmentsRemoved += UInt64(removable)
        return paths
    }

    /// Closes the files. What was not synced is dropped; every later call throws `.stopped`.
    public func close() {
        guard state != .closed else { return }
        state = .closed
        active.file.close()
    }

    /// Runs `body`; its first failure stops the log.
    private func whileOpen(_ body: () throws(DiskError) -> Void) throws(LogError) {
        guard state == .open else { throw .stopped }
        do throws(DiskError) {
            try body()
        } catch {
            state = .failed
            active.file.close()
            throw .disk(error)
        }
    }

    /// Writes the buffer's records as one batch behind the last and syncs the file.
    private func write(_ records: RecordBuffer) throws(DiskError) {
        active.chain = records.seal(batch: active.batch + 1, offset: active.offset, seed: active.seed, chain: active.chain)
        try active.file.write(records.bytes, at: active.offset)
        do throws(DiskError) { try active.file.sync() } catch { guard planted(.ignoresFailedSync) else { throw error } }
        active.batch += 1
        active.offset += UInt64(records.count)
        statistics.bytesWritten += UInt64(records.count)
        statistics.records += UInt64(records.records)
        statistics.syncs += 1
    }

    // MARK: Segments

    /// Seals the active segment, then starts the next one with room for `bytes`.
    private func roll(toHold bytes: Int) throws(DiskError) {
        let trailer = SegmentTrailer(number: active.number, recordCount: active.chain.records, offset: active.offset, chain: active.chain.folded)
        frame.removeAll()
        frame.append(trailer)
        try write(frame)
        active.file.close()
        let header = SegmentHeader(identity: identity, number: active.number + 1, hardState: durable.hardState, start: durable.start, last: durable.last,
                                   capacityBytes: Self.capacity(toHold: bytes, options))
        active = try Self.startSegment(header, after: active.batch, previous: active.chain.previous, directory: directory, disk: disk)
        shape.segments.append((active.number, .zero))
        statistics.segmentsStarted += 1
        statistics.bytesWritten += active.offset
    }

    /// What a segment must be able to hold: header, the batch, trailer; in whole pages.
    static func capacity(toHold bytes: Int, _ options: LogOptions) -> UInt64 {
        let needed = max(options.segmentSizeBytes, RecordFormat.segmentRecordSize + bytes + RecordFormat.trailerRecordSize)
        return (UInt64(needed) + 4095) & ~4095
    }

    /// Creates a segment that holds its header. It appears under its name only when complete: written and synced
    /// under a temporary name, renamed, directory synced.
    static func startSegment(_ header: SegmentHeader, after batch: UInt64, previous: UInt32, directory: String, disk: any Disk) throws(DiskError) -> ActiveSegment {
        let path = directory + "/" + RecordFormat.fileName(segment: header.number)
        let temporary = path + RecordFormat.temporarySuffix
        if try disk.exists(temporary) { try disk.remove(temporary) }
        let file = try disk.open(temporary, .new)
        do throws(DiskError) {
            try file.preallocate(header.capacityBytes)
            let records = RecordBuffer(capacity: 4096)
            records.append(header)
            let chain = records.seal(batch: batch + 1, offset: 0, seed: RecordFormat.segmentSeed, chain: RecordChain(previous: previous))
            try file.write(records.bytes, at: 0)
            try file.sync()
            try disk.rename(temporary, to: path)
            if !planted(.leavesSegmentNameUnsynced) { try disk.syncDirectory(directory) }
            return ActiveSegment(number: header.number, file: file, capacity: header.capacityBytes, offset: UInt64(records.count),
                                 seed: chain.previous, chain: chain, batch: batch + 1, isFresh: true)
        } catch {
            file.close()
            throw error
        }
    }

    func path(ofSegment number: UInt64) -> String { directory + "/" + RecordFormat.fileName(segment: number) }

    // MARK: Creating

    /// Whether the directory holds a log (of whatever state). False while an interrupted `create` has left only its temporary file.
    public static func exists(directory: String, disk: any Disk) throws(LogError) -> Bool {
        do throws(DiskError) {
            guard try disk.exists(directory) else { return false }
            return try disk.list(directory).contains { RecordFormat.segmentNumber($0) != nil }
        } catch {
            throw .disk(error)
        }
    }

    /// Creates an empty log that starts behind `start` (a restored snapshot's position, else zero). Either complete and
    /// durable, or `exists` still says no. Missing directories are created.
    public static func create(directory: String, disk: any Disk, identity: LogIdentity, options: LogOptions = LogOptions(),
                              hardState: HardState = HardState(), start: LogPosition = .zero) throws(LogError) -> WriteAheadLog {
        if try exists(directory: directory, disk: disk) { throw .alreadyExists(directory: directory) }
        do throws(DiskError) {
            try makeDurableDirectory(directory, disk)
            let header = SegmentHeader(identity: identity, number: 1, hardState: hardState, start: start, last: start, capacityBytes: capacity(toHold: 0, options))
            let active = try startSegment(header, after: 0, previous: 0, directory: directory, disk: disk)
            var shape = LogShape(hardState: hardState, start: start, last: start)
            shape.segments = [(1, .zero)]
            return WriteAheadLog(directory: directory, disk: disk, identity: identity, options: options, shape: shape, active: active)
        } catch {
            throw .disk(error)
        }
    }

    /// Creates the directory with its parents; each new name is synced in the directory above it.
    private static func makeDurableDirectory(_ directory: String, _ disk: any Disk) throws(DiskError) {
        var created: [String] = []
        var path = directory
        // The last level is synced even if it is there: an earlier attempt may have died between creating and syncing.
        created.append(path)
        while let parent = parentDirectory(path), try !disk.exists(parent) {
            created.append(parent)
            path = parent
        }
        try disk.makeDirectory(directory)
        for path in created {
            if let parent = parentDirectory(path) { try disk.syncDirectory(parent) }
        }
    }

    /// nil at the top ("/" or "." for a relative name is given as such).
    public static func parentDirectory(_ path: String) -> String? {
        var text = Array(path.utf8)
        while text.count > 1, text.last == UInt8(ascii: "/") { text.removeLast() }
        if text == [UInt8(ascii: "/")] || text == [UInt8(ascii: ".")] || text.isEmpty { return nil }
        guard let slash = text.lastIndex(of: UInt8(ascii: "/")) else { return "." }
        return slash == 0 ? "/" : String(decoding: text[..<slash], as: UTF8.self)
    }
}
