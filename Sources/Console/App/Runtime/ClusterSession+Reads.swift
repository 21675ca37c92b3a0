import Base
import Client
import UI

/// Reads: bounded requests only, never more than 1,000 keys in one.
extension ClusterSession {
    private static let pageLimit: Int64 = 1_000

    // MARK: Directory

    func loadDirectory(_ request: DirectoryRequest) async {
        var page = DirectoryPage(request: request, entries: [], isComplete: false, revision: 0)
        do {
            page = switch request.direction {
            case .forward: try await forward(request)
            case .backward: try await backward(request)
            }
            page.entries = try await counted(page.entries, page.revision)
        } catch is CancellationError {
            return
        } catch {
            page.failure = Self.text(of: error)
        }
        mailbox.post(.directory(page))
    }

    /// The directory below `prefix` that `key` lies in, with its separator; nil for a direct child.
    private func directory(of key: [UInt8], _ request: DirectoryRequest) -> [UInt8]? {
        guard let separator = request.separator, let place = key.dropFirst(request.prefix.bytes.count).firstIndex(of: separator) else { return nil }
        return Array(key[...place])
    }

    /// Where the entries after `child` begin: behind all that is below it when it is a directory.
    private func start(after child: KeyBytes, _ request: DirectoryRequest) -> [UInt8]? {
        let isDirectory = request.separator != nil && child.bytes.last == request.separator && child.bytes.count > request.prefix.bytes.count
        return isDirectory ? child.prefixEnd?.bytes : child.bytes + [0]
    }

    /// Skip-scan: reads a few keys, and jumps behind each directory as soon as it shows.
    private func forward(_ request: DirectoryRequest) async throws -> DirectoryPage {
        var page = DirectoryPage(request: request, entries: [], isComplete: false, revision: 0)
        let end = request.before?.bytes ?? request.prefix.prefixEnd?.bytes
        var next: [UInt8]? = request.prefix.bytes
        if let after = request.after { next = start(after: after, request) }
        // Small at first and after each directory, whose other keys would be read for nothing; large in long runs of plain keys.
        var batch: Int64 = request.separator == nil ? Self.pageLimit : 32
        while page.entries.count < request.limit {
            guard let from = next, end.map({ KeyBytes(from) < KeyBytes($0) }) ?? true else {
                page.isComplete = true
                break
            }
            let limit = request.separator == nil ? min(batch, Int64(request.limit - page.entries.count)) : batch
            var query = RangeQuery(KeyRange(from: from, to: end), limit: limit, keysOnly: true)
            query.revision = Revision(page.revision) // one page, one revision
            let result = try await client.range(query)
            if page.revision == 0 { page.revision = result.header.revision.rawValue }
            var lastDirectory: [UInt8]?
            for kv in result.kvs where page.entries.count < request.limit {
                if let directory = directory(of: kv.key, request) {
                    if directory == lastDirectory { continue }
                    lastDirectory = directory
                    page.entries.append(.directory(prefix: KeyBytes(directory), keyCount: nil))
                    next = KeyBytes(directory).prefixEnd?.bytes
                } else {
                    page.entries.append(.key(KeySummary(kv, valueSize: nil)))
                    next = kv.key + [0]
                }
            }
            // (A server that has more and gives nothing would be asked for ever.)
            if !result.more || result.kvs.isEmpty, page.entries.count < request.limit {
                page.isComplete = true
                break
            }
            batch = lastDirectory == nil ? min(Self.pageLimit, batch * 4) : 32
        }
        if let next, !page.isComplete, let end, !(KeyBytes(next) < KeyBytes(end)) { page.isComplete = true }
        return page
    }

    /// The last `limit` entries before an end. etcd sorts a whole range to answer "the last few", so the range is narrowed first.
    private func backward(_ request: DirectoryRequest) async throws -> DirectoryPage {
        var page = DirectoryPage(request: request, entries: [], isComplete: false, revision: 0)
        var low = request.prefix.bytes
        if let after = request.after {
            guard let start = start(after: after, request) else {
                page.isComplete = true
                return page
            }
            low = start
        }
        var end = request.before?.bytes ?? request.prefix.prefixEnd?.bytes
        while page.entries.count < request.limit {
            if let end, !(KeyBytes(low) < KeyBytes(end)) {
                page.isComplete = true
                break
            }
            let wanted = Int64(max(32, request.limit - page.entries.count))
            let narrow = try await narrowed(from: low, to: end, wanted: wanted, revision: &page.revision)
            var query = RangeQuery(KeyRange(from: narrow, to: end), limit: min(Self.pageLimit, wanted), revision: Revision(page.revision), keysOnly: true)
            query.order = .descending
            let result = try await client.range(query)
            if page.revision == 0 { page.revision = result.header.revision.rawValue }
            let before = page.entries.count
            var skipped = false
            for kv in result.kvs where page.entries.count < request.limit {
                if let end, !(KeyBytes(kv.key) < KeyBytes(end)) { continue }
                if let directory = directory(of: kv.key, request) {
                    page.entries.append(.directory(prefix: KeyBytes(directory), keyCount: nil))
                    end = directory // everything else in it is below this entry
                    skipped = true
                } else {
                    page.entries.append(.key(KeySummary(kv, valueSize: nil)))
                    end = kv.key
                }
            }
            if page.entries.count >= request.limit { break }
            if !result.more && !skipped || page.entries.count == before || result.kvs.isEmpty {
                guard narrow == low else {
                    end = narrow
                    continue
                }
                page.isComplete = true
                break
            }
        }
        page.entries.reverse()
        return page
    }

    /// A lower bound above `low` with at least `wanted` keys, but not many more, between it and `end`: found by halving the key space
    /// with count-only requests. `low` itself where that is small enough or no better bound is found.
    private func narrowed(from low: [UInt8], to end: [UInt8]?, wanted: Int64, revision: inout Int64) async throws -> [UInt8] {
        let acceptable = max(5_000, wanted * 4)
        let all = try await client.range(RangeQuery(KeyRange(from: low, to: end), revision: Revision(revision), countOnly: true))
        if revision == 0 { revision = all.header.revision.rawValue }
        guard all.count > acceptable else { return low }
        var below = low, above = end ?? [UInt8](repeating: 0xff, count: low.count + 2)
        for _ in 0..<48 {
            guard let middle = Self.midpoint(below, above) else { return below }
            let count = try await client.range(RangeQuery(KeyRange(from: middle, to: end), revision: Revision(revision), countOnly: true)).count
            if count > acceptable { below = middle } else if count < wanted { above = middle } else { return middle }
        }
        return below
    }

    /// A byte string between two, about half way; nil when there is no room left that matters.
    static func midpoint(_ low: [UInt8], _ high: [UInt8]) -> [UInt8]? {
        var shared = 0
        while shared < low.count, shared < high.count, low[shared] == high[shared] { shared += 1 }
        func fraction(_ key: [UInt8]) -> UInt64 {
            var value: UInt64 = 0
            for offset in 0..<7 { value = value << 8 | (shared + offset < key.count ? UInt64(key[shared + offset]) : 0) }
            return value
        }
        let a = fraction(low), b = fraction(high)
        guard b > a, b - a > 1 else { return nil }
        var middle = Array(low[..<min(shared, low.count)])
        let value = a + (b - a) / 2
        for offset in (0..<7).reversed() { middle.append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(offset)))) }
        while middle.count > shared + 1, middle.last == 0 { middle.removeLast() }
        return middle
    }

    /// Directories with the number of keys below each: a few count-only requests at a time.
    private func counted(_ entries: [DirectoryEntry], _ revision: Int64) async throws -> [DirectoryEntry] {
        var entries = entries
        let directories = entries.indices.compactMap { index -> (Int, KeyBytes)? in
            if case .directory(let prefix, nil) = entries[index] { (index, prefix) } else { nil }
        }
        let client = client
        try await withThrowingTaskGroup(of: (Int, KeyBytes, Int64?).self) { group in
            var waiting = directories[...]
            func add() {
                guard let (index, prefix) = waiting.popFirst() else { return }
                group.addTask {
                    // Counting is an extra: where it is refused (compacted meanwhile, no right), the entry stands without.
                    let query = RangeQuery(.prefix(prefix), revision: Revision(revision), isSerializable: true, countOnly: true)
                    return (index, prefix, try? await client.range(query).count)
                }
            }
            for _ in 0..<16 { add() }
            while let (index, prefix, count) = try await group.next() {
                entries[index] = .directory(prefix: prefix, keyCount: count)
                add()
            }
        }
        return entries
    }

    // MARK: One key

    func loadValue(_ id: RequestID, _ key: KeyBytes, _ revision: Int64?) async {
        do {
            let found = try await client.range(RangeQuery(.single(key), revision: Revision(revision ?? 0))).kvs.first
            try Task.checkCancellation()
            mailbox.post(.value(id, key: key, value: found.map { UI.KeyValue($0) }, failure: nil))
        } catch is CancellationError {
            return
        } catch {
            mailbox.post(.value(id, key: key, value: nil, failure: Self.text(of: error)))
        }
    }

    /// Walks back version by version: the one before `modRevision` is the key as it was at the revision below. Deletions do not show
    /// (etcd keeps no list of them); before the revision at which the key was created there is nothing to follow.
    func loadHistory(_ id: RequestID, _ key: KeyBytes, _ modRevision: Int64, _ limit: Int) async {
        var versions: [KeyVersion] = []
        var next = modRevision
        var compacted: Int64?
        var isComplete = false
        do {
            while versions.count < limit, next > 0 {
                let found: Client.KeyValue?
                do {
                    found = try await client.range(RangeQuery(.single(key), revision: Revision(next))).kvs.first
                } catch let error as EtcdError where error.isService(.compacted) {
                    compacted = next
                    isComplete = true
                    break
                }
                try Task.checkCancellation()
                guard let found else {
                    isComplete = true
                    break
                }
                versions.append(KeyVersion(revision: found.modRevision.rawValue, version: found.version, value: found.value,
                                           lease: UInt64(bitPattern: found.lease.rawValue), at: monitor.time(of: found.modRevision.rawValue)))
                if found.version <= 1 {
                    isComplete = true
                    break
                }
                next = max(0, found.modRevision.rawValue) - 1
            }
            mailbox.post(.history(id, key: key, versions: versions, isComplete: isComplete, compactRevision: compacted, failure: nil))
        } catch is CancellationError {
            return
        } catch {
            mailbox.post(.history(id, key: key, versions: versions, isComplete: false, compactRevision: compacted, failure: Self.text(of: error)))
        }
    }

    func loadLease(_ id: UInt64) async {
        guard let info = try? await client.lease(LeaseID(Int64(bitPattern: id))) else { return } // the next look at the key asks again
        mailbox.post(.lease(LeaseState(id: id, grantedSeconds: info.grantedSeconds, leftSeconds: info.remainingSeconds.clamped(to: -1...Int64(Bounds.count.upperBound)), sampledAt: Clock.now())))
    }

    // MARK: Many keys

    func countPrefix(_ id: RequestID, _ prefix: KeyBytes, _ samples: Int) async {
        do {
            let result = try await client.range(RangeQuery(.prefix(prefix), limit: Self.pageLimit, keysOnly: true))
            // Exact only where one page shows every key.
            let leased = result.more ? nil : result.kvs.count { $0.lease != .none }
            mailbox.post(.count(id, prefix: prefix, count: result.count, samples: result.kvs.prefix(samples).map { KeyBytes($0.key) }, leased: leased, failure: nil))
        } catch is CancellationError {
            return
        } catch {
            mailbox.post(.count(id, prefix: prefix, count: 0, samples: [], leased: nil, failure: Self.text(of: error)))
        }
    }

    func search(_ id: RequestID, _ prefix: KeyBytes, _ needle: [UInt8], _ limit: Int) async {
        var scanned: Int64 = 0
        var found = 0
        do {
            for try await page in client.pages(RangeQuery(.prefix(prefix), keysOnly: true), pageSize: Self.pageLimit) {
                try Task.checkCancellation()
                scanned += Int64(page.kvs.count)
                var matches: [KeySummary] = []
                for kv in page.kvs where found < limit && (needle.isEmpty || Self.contains(kv.key, needle)) {
                    matches.append(KeySummary(kv, valueSize: nil))
                    found += 1
                }
                let isFinished = found >= limit || !page.more
                mailbox.post(.searchResults(id, keys: matches, scanned: scanned, isFinished: isFinished, failure: nil))
                if isFinished { return }
            }
        } catch is CancellationError {
            return
        } catch {
            mailbox.post(.searchResults(id, keys: [], scanned: scanned, isFinished: true, failure: Self.text(of: error)))
        }
    }

    /// Whether `needle` (not empty) occurs in `key`. Letters of ASCII match in either case unless the needle has
    /// capitals.
    static func contains(_ key: [UInt8], _ needle: [UInt8]) -> Bool {
        guard key.count >= needle.count else { return false }
        let isExact = needle.contains { (0x41...0x5a).contains($0) }
        func folded(_ byte: UInt8) -> UInt8 { !isExact && (0x41...0x5a).contains(byte) ? byte | 0x20 : byte }
        search: for place in 0...(key.count - needle.count) {
            for offset in needle.indices where folded(key[place + offset]) != needle[offset] { continue search }
            return true
        }
        return false
    }
}
