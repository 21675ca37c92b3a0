import Base
import Log
import Raft
import Testing

/// One run of a log on a disk that dies at some call; knows what it may hold afterwards.
private struct CrashRun {
    var disk: MemoryDisk
    /// What is durable for sure.
    var durable = LogModel()
    /// Like `durable`, with the batches of the sync that was under way.
    var appended = LogModel()
    /// The latest compaction begun.
    var compacted = LogIndex.zero

    /// The log may hold either state; says what differs from both.
    func difference(_ recovered: RecoveredLog) -> String? {
        guard let one = durable.difference(from: recovered, compacted: compacted),
              let other = appended.difference(from: recovered, compacted: compacted) else { return nil }
        return "neither the durable state (\(one)) nor the one being written (\(other))"
    }

    mutating func settle(_ recovered: RecoveredLog) {
        if appended.difference(from: recovered, compacted: compacted) == nil { durable = appended } else { appended = durable }
    }
}

@Suite struct Crashes {
    private func run(_ log: WriteAheadLog, _ run: inout CrashRun, _ maker: inout BatchMaker, steps: Int) throws(LogError) {
        for _ in 0..<steps {
            switch maker.below(10) {
            case 0:
                let floor = max(run.compacted, run.appended.origin.index)
                let index = LogIndex(floor.rawValue + UInt64(maker.below(Int(run.appended.last.index.rawValue - min(floor.rawValue, run.appended.last.index.rawValue)) + 1)))
                // Only what is durable may be compacted.
                try log.sync()
                run.durable = run.appended
                run.compacted = max(run.compacted, min(index, run.appended.last.index))
                try log.compact(upTo: run.compacted)
            case 1...4:
                try log.sync()
                run.durable = run.appended
            default:
                let next = maker.next(after: run.appended, floor: max(run.compacted, run.appended.origin.index))
                if let reset = next.reset, reset.index < run.compacted { continue }
                log.append(next)
                run.appended.apply(next)
            }
        }
        try log.sync()
        run.durable = run.appended
    }

    /// Power cuts at random calls, again and again, each time on what the last one left.
    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8] as [UInt64])
    func randomOperationsSurvivePowerCuts(seed: UInt64) throws {
        var maker = BatchMaker(seed: seed)
        var state = CrashRun(disk: MemoryDisk())
        try create(state.disk, segmentSize: 4096).close()
        for round in 0..<50 {
            let place: Comment = "seed \(seed) round \(round)"
            var log: WriteAheadLog
            do {
                let opened = try reopen(state.disk, segmentSize: 4096)
                log = opened.log
                if let difference = state.difference(opened.recovered) {
                    Issue.record("\(difference), seed \(seed) round \(round), repair \(String(describing: opened.recovered.repair))")
                    return
                }
                state.settle(opened.recovered)
                #expect(log.last == opened.recovered.last, place)
            } catch {
                Issue.record("\(error), seed \(seed) round \(round)")
                return
            }
            // Sometimes the next start dies too; what it read must hold then.
            state.disk.faults = [MemoryDisk.Fault(nil, after: maker.below(100), staysOn: true)]
            do throws(LogError) {
                try run(log, &state, &maker, steps: 10 + maker.below(40))
            } catch {
                guard case .disk = error else {
                    Issue.record("\(error), seed \(seed) round \(round)")
                    return
                }
            }
            state.disk = state.disk.crash(using: &maker.generator)
            if maker.below(3) == 0 {
                state.disk.faults = [MemoryDisk.Fault(nil, after: maker.below(20), staysOn: true)]
                if let opened = try? reopen(state.disk, segmentSize: 4096) {
                    #expect(state.difference(opened.recovered) == nil, place)
                    state.settle(opened.recovered)
                }
                state.disk = state.disk.crash(using: &maker.generator)
            }
        }
    }

    /// One workload with rolls, a reset and compactions; power cut at every single call, several outcomes each.
    @Test func powerCutAtEveryCallOfAWorkload() throws {
        func workload(_ disk: MemoryDisk, _ state: inout CrashRun) throws(LogError) {
            var maker = BatchMaker(seed: 77)
            let log = try WriteAheadLog.create(directory: directory, disk: disk, identity: here, options: LogOptions(segmentSizeBytes: 4096))
            try run(log, &state, &maker, steps: 90)
            state.compacted = state.durable.last.index
            try log.compact(upTo: state.compacted)
        }
        let disk = MemoryDisk()
        var whole = CrashRun(disk: disk)
        try workload(disk, &whole)
        let calls = disk.calls
        #expect(calls > 100)
        #expect(whole.compacted > .zero)
        for call in 0..<calls {
            let disk = MemoryDisk()
            disk.faults = [MemoryDisk.Fault(nil, after: call, staysOn: true)]
            var state = CrashRun(disk: disk)
            #expect(throws: LogError.self) { try workload(disk, &state) }
            for seed in 0..<8 as Range<UInt64> {
                var generator = SeededGenerator(seed: seed &* 1000 &+ UInt64(call))
                let survivor = disk.crash(seed == 0 ? .syncedOnly : seed == 1 ? .everything : .chosen, using: &generator)
                let place: Comment = "call \(call) seed \(seed)"
                guard try WriteAheadLog.exists(directory: directory, disk: survivor) else {
                    #expect(state.durable == LogModel(), place)
                    _ = try create(survivor)
                    continue
                }
                do {
                    let recovered = try reopen(survivor, segmentSize: 4096).recovered
                    #expect(state.difference(recovered) == nil, place)
                    // What was returned is durable: a second power cut right away takes nothing.
                    let again = try reopen(survivor.crash(.syncedOnly, using: &generator), segmentSize: 4096).recovered
                    #expect(again.entries == recovered.entries && again.hardState == recovered.hardState && again.start == recovered.start, place)
                    #expect(again.repair == nil, place)
                } catch {
                    Issue.record("\(error), call \(call) seed \(seed)")
                }
            }
        }
    }

    @Test func powerCutAtEveryCallOfACompaction() throws {
        var model = LogModel()
        func prepare() throws -> (MemoryDisk, WriteAheadLog) {
            let disk = MemoryDisk()
            let log = try create(disk, segmentSize: 4096)
            model = LogModel()
            for i in 1...60 as ClosedRange<UInt64> {
                let next = batch(i == 2 ? hardState(1, 9) : nil, [entry(i, 1, bytes: 200)])
                try log.persist(next)
                model.apply(next)
            }
            return (disk, log)
        }
        let (whole, log) = try prepare()
        let before = whole.calls
        try log.compact(upTo: LogIndex(45))
        let calls = whole.calls - before
        #expect(calls >= 5)
        for call in 0...calls {
            let (disk, log) = try prepare()
            disk.faults = [MemoryDisk.Fault(nil, after: call, staysOn: true)]
            try? log.compact(upTo: LogIndex(45))
            for seed in 0..<20 as Range<UInt64> {
                var generator = SeededGenerator(seed: seed)
                let recovered = try reopen(disk.crash(using: &generator), segmentSize: 4096).recovered
                #expect(model.difference(from: recovered, compacted: LogIndex(45)) == nil, "call \(call) seed \(seed)")
            }
        }
    }
}

@Suite struct Failures {
    @Test(arguments: [MemoryDisk.Operation.write, .sync]) func firstFailureStopsTheLog(_ operation: MemoryDisk.Operation) throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        try log.persist(batch(nil, entries(1...2, 1)))
        disk.faults = [MemoryDisk.Fault(operation)]
        let error = #expect(throws: LogError.self) { try log.persist(batch(nil, entries(3...3, 1))) }
        guard case .disk(let cause)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(cause.code == MemoryDisk.ioError)
        #expect(log.isStopped)
        // The disk works again, the log does not.
        let calls = disk.calls
        #expect(throws: LogError.stopped) { try log.sync() }
        #expect(throws: LogError.stopped) { try log.persist(batch(nil, entries(3...3, 1))) }
        #expect(throws: LogError.stopped) { try log.compact(upTo: LogIndex(2)) }
        #expect(disk.calls == calls)
    }

    @Test func closedLogThrowsStopped() throws {
        let log = try create(MemoryDisk())
        log.close()
        #expect(throws: LogError.stopped) { try log.sync() }
    }

    @Test func whatIsReadBackAfterAFailedSyncBecomesDurable() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        try log.persist(batch(nil, entries(1...2, 1)))
        disk.faults = [MemoryDisk.Fault(.sync)]
        #expect(throws: LogError.self) { try log.persist(batch(hardState(5, 5), entries(3...3, 1))) }
        // The process restarts on the same kernel: the cache still has the bytes, but calls them clean.
        let recovered = try reopen(disk).recovered
        #expect(recovered.last == position(3, 1))
        var generator = SeededGenerator(seed: 3)
        let after = try reopen(disk.crash(.syncedOnly, using: &generator)).recovered
        #expect(after.last == position(3, 1))
        #expect(after.hardState == hardState(5, 5))
    }

    @Test func fullDiskAtAnyCallLosesNothing() throws {
        func workload(_ disk: MemoryDisk, _ acknowledged: inout LogModel, _ appended: inout LogModel) throws(LogError) {
            let log = try WriteAheadLog.create(directory: directory, disk: disk, identity: here, options: LogOptions(segmentSizeBytes: 4096))
            for i in 1...40 as ClosedRange<UInt64> {
                let next = batch(i % 7 == 0 ? hardState(i, 1) : nil, [entry(i, 1, bytes: 250)])
                appended.apply(next)
                try log.persist(next)
                acknowledged = appended
            }
        }
        let disk = MemoryDisk()
        var model = LogModel()
        var appended = LogModel()
        try workload(disk, &model, &appended)
        for call in 0..<disk.calls {
            let disk = MemoryDisk()
            disk.faults = [MemoryDisk.Fault(nil, after: call, code: MemoryDisk.noSpace)]
            var acknowledged = LogModel()
            var appended = LogModel()
            #expect(throws: LogError.self) { try workload(disk, &acknowledged, &appended) }
            // The same kernel, restarted after somebody made room.
            guard try WriteAheadLog.exists(directory: directory, disk: disk) else {
                #expect(acknowledged == LogModel())
                continue
            }
            let recovered = try reopen(disk, segmentSize: 4096).recovered
            #expect(acknowledged.difference(from: recovered, compacted: .zero) == nil || appended.difference(from: recovered, compacted: .zero) == nil, "call \(call)")
            var generator = SeededGenerator(seed: 1)
            let durable = try reopen(disk.crash(.syncedOnly, using: &generator), segmentSize: 4096).recovered
            #expect(durable.entries == recovered.entries && durable.hardState == recovered.hardState, "call \(call)")
        }
    }

    @Test func leftoverTemporarySegmentIsRemoved() throws {
        let disk = MemoryDisk()
        try create(disk).close()
        disk.setBytes(of: segmentPath(2) + ".tmp", [1, 2, 3])
        _ = try reopen(disk)
        #expect(try disk.list(directory) == ["wal-0000000000000001.log"])
    }
}

@Suite struct MemoryDiskBehaviour {
    private func write(_ bytes: [UInt8], _ file: any DiskFile, at offset: UInt64 = 0) throws {
        try bytes.withUnsafeBytes { try file.write($0, at: offset) }
    }

    @Test func unsyncedBytesAndNamesAreLost() throws {
        let disk = MemoryDisk()
        try disk.makeDirectory("/a")
        try disk.syncDirectory("/")
        let file = try disk.open("/a/x", .new)
        try write([1, 2, 3], file)
        try file.sync()
        var generator = SeededGenerator(seed: 1)
        #expect(try disk.crash(.syncedOnly, using: &generator).list("/a") == [])
        try disk.syncDirectory("/a")
        try write([9], file, at: 1)
        #expect(disk.bytes(of: "/a/x") == [1, 9, 3])
        #expect(disk.crash(.syncedOnly, using: &generator).bytes(of: "/a/x") == [1, 2, 3])
        #expect(disk.crash(.everything, using: &generator).bytes(of: "/a/x") == [1, 9, 3])
        try disk.rename("/a/x", to: "/a/y")
        #expect(try disk.crash(.syncedOnly, using: &generator).list("/a") == ["x"])
    }

    @Test func writesTearAtSectors() throws {
        let disk = MemoryDisk()
        let file = try disk.open("/x", .new)
        try file.preallocate(4096)
        try file.sync()
        try disk.syncDirectory("/")
        try write(Array(repeating: 7, count: 2048), file, at: 256)
        var seen: Set<[UInt8]> = []
        var generator = SeededGenerator(seed: 9)
        for _ in 0..<200 {
            let bytes = try #require(disk.crash(using: &generator).bytes(of: "/x"))
            #expect(bytes.count == 4096)
            for sector in 0..<8 {
                let part = bytes[sector * 512..<(sector + 1) * 512]
                let filled = part.filter { $0 == 7 }.count
                let whole = sector == 0 || sector == 4 ? 256 : sector < 4 ? 512 : 0
                #expect(filled == 0 || filled == whole)
            }
            seen.insert(bytes)
        }
        #expect(seen.count > 10)
    }

    @Test func sameSeedGivesTheSameSurvivor() throws {
        func survivor(_ seed: UInt64) throws -> [UInt8]? {
            let disk = MemoryDisk()
            let log = try create(disk, segmentSize: 4096)
            for i in 1...9 as ClosedRange<UInt64> { try log.persist(batch(nil, entries(i...i, 1, bytes: 700))) }
            disk.faults = [MemoryDisk.Fault(.sync)]
            try? log.persist(batch(nil, entries(10...20, 1)))
            var generator = SeededGenerator(seed: seed)
            return disk.crash(using: &generator).bytes(of: segmentPath(1))
        }
        #expect(try survivor(4) == survivor(4))
    }

    @Test func fullDiskRefusesToGrow() throws {
        let disk = MemoryDisk()
        disk.capacityBytes = 100
        let file = try disk.open("/x", .new)
        try write(Array(repeating: 1, count: 100), file)
        let error = #expect(throws: DiskError.self) { try write([1], file, at: 100) }
        #expect(error?.code == MemoryDisk.noSpace)
        try write([2], file, at: 99)
    }
}
