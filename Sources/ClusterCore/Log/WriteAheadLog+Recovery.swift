import Base
import Raft

extension WriteAheadLog {
    /// Reads the log back and makes it ready for writing. Everything returned is durable: an interrupted write is cut off,
    /// the last batch is written and synced once more (after a failed sync the page cache may hold what the device
    /// does not), and so is the directory. Damage that an interrupted write does not explain is an error.
    public static func open(directory: String, disk: any Disk, identity: LogIdentity,
                            options: LogOptions = LogOptions()) throws(LogError) -> (log: WriteAheadLog, recovered: RecoveredLog) {
        var recovery = Recovery(directory: directory, disk: disk, identity: identity, options: options)
        return try recovery.run()
    }
}

extension WriteAheadLog {
    /// Verifies every record of every segment without changing anything: an interrupted write is told, not cut, and damage does not end the search.
    /// - Parameter progress: bytes looked at and to be looked at, now and then.
    /// - Throws: `.missing`, `.disk`.
    public static func inspect(directory: String, disk: any Disk, progress: (_ done: UInt64, _ total: UInt64) -> Void = { _, _ in }) throws(LogError)
        -> LogInspection {
        var recovery = Recovery(directory: directory, disk: disk, identity: nil, options: LogOptions())
        return try recovery.inspect(progress)
    }
}

/// What a look at a log found.
public struct LogInspection: Sendable {
    /// Whose log it is; nil when no segment can be read.
    public var identity: LogIdentity?
    /// Files of the log, in order.
    public var segments: [String] = []
    /// At most one for each segment: behind the first wrong byte of one nothing can be told from it.
    public var damage: [LogError] = []
    /// An interrupted write at the end, which the next start cuts off.
    public var unfinishedWrite: TailRepair?
    /// What the next start would go on with; nil when there is damage.
    public var content: RecoveredLog?
}

/// One recovery, from the file names to an open log.
private struct Recovery {
    let directory: String
    let disk: any Disk
    /// Nil takes whatever the first segment says.
    var identity: LogIdentity?
    let options: LogOptions
    var replay = Replay()

    init(directory: String, disk: any Disk, identity: LogIdentity?, options: LogOptions) {
        self.directory = directory
        self.disk = disk
        self.identity = identity
        self.options = options
    }

    mutating func run() throws(LogError) -> (WriteAheadLog, RecoveredLog) {
        let (numbers, older) = try findSegments(removingTemporary: true)
        var end: SegmentScan.Result?
        for number in numbers {
            var size: UInt64 = 0
            end = try readSegment(number, after: end, isLast: number == numbers.last!, mode: .existing, size: &size)
        }
        guard let end else { throw .missing(directory: directory) }
        if let gap = missingFront(numbers[0]) { throw gap }
        do throws(DiskError) {
            // What lies before a gap is left over from a compaction that a crash interrupted: the rest has been shown to
            // be complete without it.
            for number in older { try disk.remove(directory + "/" + RecordFormat.fileName(segment: number)) }
            let active = try makeDurable(end, number: numbers.last!)
            let log = WriteAheadLog(directory: directory, disk: disk, identity: identity!, options: options, shape: replay.shape!, active: active)
            let entries = replay.entriesBehindStart()
            return (log, RecoveredLog(hardState: log.hardState, start: log.start, entries: entries, repair: end.repair,
                                      segmentCount: log.segmentCount, bytesRead: replay.bytesRead))
        } catch {
            throw .disk(error)
        }
    }

    /// Entries that ought to be there lie before the first segment.
    private func missingFront(_ first: UInt64) -> LogError? {
        let shape = replay.shape!
        guard shape.start.index < shape.base.index else { return nil }
        return .damaged(segment: directory + "/" + RecordFormat.fileName(segment: first - 1), offset: 0,
                        detail: "the file is missing, and with it entries \(shape.start.index.rawValue + 1) to \(shape.base.index.rawValue)")
    }

    mutating func inspect(_ progress: (UInt64, UInt64) -> Void) throws(LogError) -> LogInspection {
        let (numbers, older) = try findSegments(removingTemporary: false)
        guard !numbers.isEmpty else { throw .missing(directory: directory) }
        var found = LogInspection()
        // Those before a gap are left over from an interrupted compaction; the next start removes them.
        found.segments = (older + numbers).map { directory + "/" + RecordFormat.fileName(segment: $0) }
        var total: UInt64 = 0
        do throws(DiskError) {
            for path in found.segments {
                let file = try disk.open(path, .reading)
                defer { file.close() }
                total += try file.size
            }
        } catch {
            throw .disk(error)
        }
        var done: UInt64 = 0
        progress(0, total)
        var end: SegmentScan.Result?
        for number in numbers {
            do throws(LogError) {
                end = try readSegment(number, after: end, isLast: number == numbers.last!, mode: .reading, size: &done)
                if identity == nil { identity = end!.header.identity }
            } catch {
                if case .disk = error { throw error }
                found.damage.append(error)
                // The next one says by itself where it begins.
                end = nil
                replay = Replay()
            }
            progress(done, total)
        }
        found.identity = identity
        found.unfinishedWrite = end?.repair
        guard found.damage.isEmpty, let end else { return found }
        if let gap = missingFront(numbers[0]) {
            found.damage.append(gap)
            return found
        }
        let shape = replay.shape!
        found.content = RecoveredLog(hardState: shape.hardState, start: shape.start, entries: replay.entriesBehindStart(), repair: end.repair,
                                     segmentCount: numbers.count, bytesRead: replay.bytesRead)
        return found
    }

    /// The unbroken row of segments at the end, and the ones before a gap.
    private func findSegments(removingTemporary: Bool) throws(LogError) -> (numbers: [UInt64], older: [UInt64]) {
        do throws(DiskError) {
            guard try disk.exists(directory) else { return ([], []) }
            var all: [UInt64] = []
            for name in try disk.list(directory) {
                if let number = RecordFormat.segmentNumber(name) {
                    all.append(number)
                } else if removingTemporary, name.hasPrefix("wal-"), name.hasSuffix(RecordFormat.temporarySuffix) {
                    try disk.remove(directory + "/" + name)
                }
            }
            all.sort()
            var first = all.endIndex
            while first > 0, first == all.endIndex || all[first - 1] + 1 == all[first] { first -= 1 }
            return (Array(all[first...]), Array(all[..<first]))
        } catch {
            throw .disk(error)
        }
    }

    private mutating func readSegment(_ number: UInt64, after: SegmentScan.Result?, isLast: Bool, mode: OpenMode,
                                      size: inout UInt64) throws(LogError) -> SegmentScan.Result {
        let path = directory + "/" + RecordFormat.fileName(segment: number)
        let bytes: [UInt8]
        do throws(DiskError) {
            let file = try disk.open(path, mode)
            defer { file.close() }
            bytes = try file.read(at: 0, count: Int(try file.size))
            size += UInt64(bytes.count)
        } catch {
            throw .disk(error)
        }
        var replay = replay
        self.replay = Replay()  // keeps the arrays uniquely referenced while the scan changes them
        let outcome = bytes.withUnsafeBytes { raw in
            let scan = SegmentScan(raw: raw, path: path, number: number, isLast: isLast, identity: identity, options: options, after: after)
            return scan.run(&replay)
        }
        self.replay = replay
        return try outcome.get()
    }

    /// Cuts, rewrites, syncs; starts a new segment if the last one is sealed.
    private mutating func makeDurable(_ end: SegmentScan.Result, number: UInt64) throws(DiskError) -> WriteAheadLog.ActiveSegment {
        let file = try disk.open(directory + "/" + RecordFormat.fileName(segment: number), .existing)
        do throws(DiskError) {
            if end.repair != nil, !planted(.leavesTornTail) {
                // Zeros from here on: nothing of the cut write can be found again.
                try file.truncate(to: end.offset)
            }
            try file.preallocate(end.header.capacityBytes)
            // Every batch before the last was synced successfully, or the last one would not have been written.
            let from = end.lastBatchOffset
            let last = try file.read(at: from, count: Int(end.offset - from))
            if !planted(.trustsRecoveredTail) {
                try writeAll(last, to: file, at: from)
                try file.sync()
            }
            try disk.syncDirectory(directory)
            guard end.isSealed else {
                return WriteAheadLog.ActiveSegment(number: number, file: file, capacity: end.header.capacityBytes, offset: end.offset, seed: end.seed,
                                                   chain: end.chain, batch: end.batch, isFresh: end.lastBatchOffset == 0)
            }
        } catch {
            file.close()
            throw error
        }
        file.close()
        let shape = replay.shape!
        let header = SegmentHeader(identity: identity!, number: number + 1, hardState: shape.hardState, start: shape.start, last: shape.last,
                                   capacityBytes: WriteAheadLog.capacity(toHold: 0, options))
        replay.shape!.segments.append((number + 1, .zero))
        return try WriteAheadLog.startSegment(header, after: end.batch, previous: end.chain.previous, directory: directory, disk: disk)
    }

    private func writeAll(_ bytes: [UInt8], to file: any DiskFile, at offset: UInt64) throws(DiskError) {
        var failure: DiskError?
        bytes.withUnsafeBytes { raw in
            do throws(DiskError) { try file.write(raw, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}

/// The log's content as it grows from record to record.
private struct Replay {
    var shape: LogShape?
    var entries: [Entry] = []
    var bytesRead = 0

    /// Takes a segment header in; returns what is wrong with it.
    mutating func begin(_ header: SegmentHeader) -> String? {
        guard Replay.isPossible(header.start), Replay.isPossible(header.last), header.hardState.term.rawValue < RecordFormat.numberLimit,
              header.number > 0, header.number < RecordFormat.numberLimit, header.capacityBytes <= RecordFormat.maxCapacityBytes else {
            return "its header holds impossible numbers"
        }
        if let shape {
            guard header.hardState == shape.hardState, header.start == shape.start, header.last == shape.last else {
                return "its header does not continue the segment before it"
            }
        } else {
            let isInOrder = header.start.index < header.last.index ? header.start.term <= header.last.term : header.start == header.last
            guard isInOrder else { return "its header starts behind its last entry" }
            shape = LogShape(hardState: header.hardState, start: header.start, last: header.last)
        }
        shape!.segments.append((header.number, .zero))
        return nil
    }

    private static func isPossible(_ position: LogPosition) -> Bool {
        position.index.rawValue < RecordFormat.numberLimit && position.term.rawValue < RecordFormat.numberLimit
    }

    /// Returns what is wrong with the record.
    mutating func apply(_ type: RecordType, _ payload: UnsafeRawBufferPointer) -> String? {
        switch type {
        case .hardState, .reset, .start:
            guard payload.count == RecordFormat.positionPayloadSize else { return "a \(type) record of \(payload.count) bytes" }
            if type == .hardState {
                let state = HardState(term: Term(payload.u64(0)), vote: MemberID(payload.u64(8)))
                guard state.term.rawValue < RecordFormat.numberLimit else { return "the term \(state.term.rawValue) is impossible" }
                if state.term < shape!.hardState.term { return "the term goes back to \(state.term.rawValue)" }
                shape!.hardState = state
                return nil
            }
            let position = LogPosition(index: LogIndex(payload.u64(0)), term: Term(payload.u64(8)))
            guard Replay.isPossible(position) else { return "a \(type) record with impossible numbers" }
            if type == .reset {
                shape!.reset(to: position)
                entries.removeAll()
                return nil
            }
            guard position.index >= shape!.start.index, position.index <= shape!.last.index else {
                return "start \(position.index.rawValue) lies outside of the log"
            }
            if let term = shape!.term(at: position.index), term != .zero, term != position.term {
                return "start \(position.index.rawValue) names term \(position.term.rawValue), the entry has \(term.rawValue)"
            }
            shape!.advanceStart(to: position)
            return nil
        case .entry:
            guard payload.count >= RecordFormat.entryFixedSize, let kind = Entry.Kind(rawValue: payload[24]) else { return "an entry that cannot be decoded" }
            let index = LogIndex(payload.u64(0))
            let term = Term(payload.u64(8))
            guard Replay.isPossible(LogPosition(index: index, term: term)) else { return "an entry with impossible numbers" }
            if let objection = shape!.objection(to: index, term: term) { return objection }
            if let first = entries.first, index <= shape!.last.index {
                entries.removeLast(entries.count - max(0, first.index.distance(to: index)))
            }
            shape!.append(index, term)
            shape!.segments[shape!.segments.count - 1].lastLive = index
            let body = UnsafeRawBufferPointer(rebasing: payload[RecordFormat.entryFixedSize...])
            entries.append(Entry(index: index, term: term, kind: kind, proposedAt: WallTime(milliseconds: Int64(bitPattern: payload.u64(16))),
                                 payload: [UInt8](body)))
            return nil
        case .segment, .trailer:
            return "a \(type) record in the middle of the segment"
        }
    }

    mutating func entriesBehindStart() -> [Entry] {
        let start = shape!.start.index
        guard let first = entries.first, first.index <= start else { return entries }
        entries.removeFirst(min(entries.count, first.index.distance(to: start) + 1))
        return entries
    }
}

/// Reads one segment: verifies every record, replays the complete batches, judges what comes behind the last one.
private struct SegmentScan {
    let raw: UnsafeRawBufferPointer
    let path: String
    let number: UInt64
    let isLast: Bool
    let identity: LogIdentity?
    let options: LogOptions
    let after: Result?

    struct Result {
        var header: SegmentHeader
        var seed: UInt32
        var chain: RecordChain
        /// The latest complete batch.
        var batch: UInt64
        var lastBatchOffset: UInt64
        /// Its end.
        var offset: UInt64
        var isSealed = false
        var repair: TailRepair?
    }

    func run(_ replay: inout Replay) -> Swift.Result<Result, LogError> {
        var result: Result
        switch readHeader(&replay) {
        case .failure(let error): return .failure(error)
        case .success(let header): result = header
        }
        defer { replay.bytesRead += Int(result.offset) }
        var offset = Int(result.offset)
        var chain = result.chain
        var ordinal: UInt32 = 0
        var pending: [(type: RecordType, payload: Range<Int>, offset: Int)] = []
        while true {
            if ordinal == 0, isZero(offset..<offset + RecordFormat.headerSize) {
                if isZero(offset..<raw.count) {
                    return isLast ? .success(result) : .failure(damaged(offset, "the segment has a successor but no trailer"))
                }
                return judge(badAt: offset, "the first bytes of a batch are missing", nil, result)
            }
            guard let header = RecordHeader(raw, at: offset, seed: result.seed) else {
                return judge(badAt: offset, "unreadable record header", nil, result)
            }
            guard header.batch == result.batch + 1, header.ordinal == ordinal, header.previous == chain.previous else {
                return judge(badAt: offset, "record out of sequence", header, result)
            }
            guard offset + header.totalSize <= raw.count else {
                return judge(badAt: offset, "the file ends inside a record", header, result)
            }
            let body = offset + RecordFormat.headerSize..<offset + header.totalSize
            guard CRC32C.checksum(UnsafeRawBufferPointer(rebasing: raw[body])) == header.payloadChecksum else {
                return judge(badAt: offset, "a record does not match its checksum", header, result)
            }
            guard header.version == RecordFormat.version, let type = RecordType(rawValue: header.type) else {
                return .failure(.unsupported(segment: path, offset: UInt64(offset), version: header.version))
            }
            let payload = body.lowerBound..<body.lowerBound + header.length
            if type == .trailer, ordinal == 0, header.endsBatch {
                let expected = SegmentTrailer(number: number, recordCount: chain.records, offset: UInt64(offset), chain: chain.folded)
                guard header.length == RecordFormat.trailerPayloadSize,
                      SegmentTrailer(reading: UnsafeRawBufferPointer(rebasing: raw[payload])) == expected else {
                    return .failure(damaged(offset, "the trailer does not match the segment"))
                }
                result.isSealed = true
            } else {
                pending.append((type, payload, offset))
            }
            chain.add(header.checksum)
            offset += header.totalSize
            ordinal += 1
            guard header.endsBatch else { continue }
            for record in pending {
                if let objection = replay.apply(record.type, UnsafeRawBufferPointer(rebasing: raw[record.payload])) {
                    return .failure(damaged(record.offset, objection))
                }
            }
            pending.removeAll(keepingCapacity: true)
            result.lastBatchOffset = result.offset
            result.offset = UInt64(offset)
            result.chain = chain
            result.batch += 1
            ordinal = 0
            if result.isSealed { return .success(result) }
        }
    }

    /// A segment gets its name only when its header is durable, so whatever is wrong with the header is damage.
    private func readHeader(_ replay: inout Replay) -> Swift.Result<Result, LogError> {
        guard let header = RecordHeader(raw, at: 0, seed: RecordFormat.segmentSeed), header.totalSize <= raw.count,
              CRC32C.checksum(UnsafeRawBufferPointer(rebasing: raw[RecordFormat.headerSize..<header.totalSize])) == header.payloadChecksum else {
            return .failure(damaged(0, "unreadable segment header"))
        }
        guard header.version == RecordFormat.version else { return .failure(.unsupported(segment: path, offset: 0, version: header.version)) }
        guard header.type == RecordType.segment.rawValue, header.length == RecordFormat.segmentPayloadSize, header.endsBatch else {
            return .failure(damaged(0, "the file does not begin with a segment header"))
        }
        let segment = SegmentHeader(reading: UnsafeRawBufferPointer(rebasing: raw[RecordFormat.headerSize..<header.totalSize]))
        if let identity, segment.identity != identity { return .failure(.foreign(segment: path, expected: identity, found: segment.identity)) }
        guard segment.number == number else { return .failure(damaged(0, "the file holds segment \(segment.number)")) }
        guard header.batch < RecordFormat.numberLimit else { return .failure(damaged(0, "its header holds impossible numbers")) }
        if let after {
            guard header.batch == after.batch + 1, header.previous == after.chain.previous else {
                return .failure(damaged(0, "its header does not continue the segment before it"))
            }
        }
        if let objection = replay.begin(segment) { return .failure(damaged(0, objection)) }
        var chain = RecordChain(previous: header.previous)
        chain.add(header.checksum)
        return .success(Result(header: segment, seed: header.checksum, chain: chain, batch: header.batch, lastBatchOffset: 0, offset: UInt64(header.totalSize)))
    }

    /// Something is wrong behind the last complete batch: an interrupted write is cut, anything else is damage.
    ///
    /// A batch is written only when the one before is durable, so a record of a later batch proves that this one was
    /// durable too. Without such a proof it is taken for interrupted only if something of it is missing: the file was
    /// zero here, so a sector that never arrived is zero, and a write that stopped short leaves zeros at a place that a
    /// complete record fills. A flipped bit leaves neither.
    private func judge(badAt offset: Int, _ detail: String, _ header: RecordHeader?, _ result: Result) -> Swift.Result<Result, LogError> {
        guard isLast else { return .failure(damaged(offset, detail)) }
        if let later = laterBatch(than: result.batch + 1, from: offset + 8, seed: result.seed) {
            return .failure(damaged(offset, "\(detail), while batch \(later.batch) at offset \(later.offset) is intact"))
        }
        guard isIncomplete(offset, header) || options.cutsDamagedTail else {
            return .failure(damaged(offset, "\(detail), though nothing of the write is missing"))
        }
        var end = raw.count
        while end >= Int(result.offset) + 8, raw.u64(end - 8) == 0 { end -= 8 }
        while end > Int(result.offset), raw[end - 1] == 0 { end -= 1 }
        var cut = result
        cut.repair = TailRepair(segment: path, offset: result.offset, bytesCut: UInt64(max(0, end - Int(result.offset))), detail: detail)
        return .success(cut)
    }

    private func laterBatch(than batch: UInt64, from: Int, seed: UInt32) -> (batch: UInt64, offset: Int)? {
        var offset = from
        while offset + RecordFormat.headerSize <= raw.count {
            if raw.u32(offset) == RecordFormat.magic, let header = RecordHeader(raw, at: offset, seed: seed), header.batch > batch {
                return (header.batch, offset)
            }
            offset += 8
        }
        return nil
    }

    /// Whether part of the record at `offset` never arrived. `header` is nil when it cannot be read; its length is not known then.
    private func isIncomplete(_ offset: Int, _ header: RecordHeader?) -> Bool {
        let end = offset + (header?.totalSize ?? RecordFormat.headerSize)
        guard end <= raw.count else { return true }
        if raw[end - 1] == 0 { return true }
        // No header begins or ends with eight zeros: this one was not written as a whole.
        if header == nil, raw.u64(offset) == 0 || raw.u64(end - 8) == 0 { return true }
        var from = offset
        while from < end {
            let next = min(end, (from / RecordFormat.sectorSize + 1) * RecordFormat.sectorSize)
            if isZero(from..<next) { return true }
            from = next
        }
        return false
    }

    /// What lies beyond the file's end counts as zero.
    private func isZero(_ range: Range<Int>) -> Bool {
        var at = range.lowerBound
        let end = min(range.upperBound, raw.count)
        while at + 8 <= end {
            if raw.u64(at) != 0 { return false }
            at += 8
        }
        while at < end {
            if raw[at] != 0 { return false }
            at += 1
        }
        return true
    }

    private func damaged(_ offset: Int, _ detail: String) -> LogError {
        .damaged(segment: path, offset: UInt64(offset), detail: detail)
    }
}
