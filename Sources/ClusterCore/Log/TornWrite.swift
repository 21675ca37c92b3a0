import Base
import Raft

/// Leaves a log as a power failure in the middle of a write does.
public struct TornWrite: Hashable, Sendable, CustomStringConvertible {
    /// Path of the segment file.
    public var segment: String
    /// Where the unfinished write begins.
    public var offset: UInt64
    /// Bytes of it that arrived, and how many it should have had.
    public var bytesWritten: Int
    public var bytesMeant: Int
    public var description: String { "\(bytesWritten) of \(bytesMeant) bytes of a record at \(offset) of \(segment)" }
}

extension WriteAheadLog {
    /// Ends the log of a member that does not run with the first half of a record: the next batch, whose write the power cut short. The
    /// batches before it stay, since a power failure does not take back what a sync had confirmed, and cutting one of those would lose what
    /// the member had acknowledged or voted. Opening the log finds the record and cuts it. (`TailRepair`)
    /// - Throws: like `open` when the log is damaged already.
    public static func tear(directory: String, disk: any Disk, identity: LogIdentity) throws(LogError) -> TornWrite {
        // Opening repairs an older tear, so that there is a whole log to continue, and leaves the next batch's place and chain.
        let (log, _) = try open(directory: directory, disk: disk, identity: identity)
        defer { log.close() }
        do throws(DiskError) { return try log.writeHalf() } catch { throw .disk(error) }
    }

    private func writeHalf() throws(DiskError) -> TornWrite {
        let active = segmentInUse
        let records = RecordBuffer(capacity: 4096)
        // Longer than two sectors, so that whole ones are missing.
        records.append(Entry(index: last.index.next, term: max(last.term, hardState.term), kind: .command, proposedAt: .unknown,
                             payload: [UInt8](repeating: 0x71, count: 1500)))
        _ = records.seal(batch: active.batch + 1, offset: active.offset, seed: active.seed, chain: active.chain)
        let half = records.count / 2
        try active.file.write(UnsafeRawBufferPointer(rebasing: records.bytes[..<half]), at: active.offset)
        try active.file.sync()
        return TornWrite(segment: path(ofSegment: active.number), offset: active.offset, bytesWritten: half, bytesMeant: records.count)
    }
}
